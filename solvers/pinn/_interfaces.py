"""Where boxes of a grid meet, and what their networks hand over there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solvers.pde import Box, Periodic, Problem, unit_points
from solvers.pinn._pieces import Joint
from solvers.pinn._trace import Trace

__all__ = ["Interface", "make_interfaces"]


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """Where two pieces meet, and which trace of each that is."""

    joint: Joint
    traces: tuple[int, int]


def make_interfaces(
    problem: Problem, boxes: Sequence[Box], pieces: Mapping[str, int], count: int
) -> tuple[list[Interface], list[list[Trace]]]:
    """All interfaces, and the traces of each piece."""
    domain = problem.domain
    shape = [pieces.get(axis, 1) for axis in domain.axes]
    places = list(itertools.product(*map(range, shape)))
    unit = unit_points("sobol", count if domain.dimension > 1 else 1, domain.dimension)
    traces: list[list[Trace]] = [[] for _ in boxes]
    found = []
    for column, axis in enumerate(domain.axes):
        rings = [c for c in problem.conditions if isinstance(c, Periodic) and c.axis == axis]
        lower, upper = domain.bounds[axis]
        length = (upper - lower) / (2 * shape[column])
        for a, place in enumerate(places):
            is_last = place[column] + 1 == shape[column]
            if shape[column] == 1 or (is_last and not rings):
                continue
            step = list(place)
            step[column] = (place[column] + 1) % shape[column]
            b = places.index(tuple(step))
            points = boxes[a].scale(unit), boxes[b].scale(unit)
            points[0][:, column] = boxes[a].bounds[axis][1]
            points[1][:, column] = boxes[b].bounds[axis][0]
            orders = {
                name: max(1, *(index[column] for index in problem.derivatives[name]))
                for name in problem.fields
            }
            sides = []
            for piece, there in zip((a, b), points, strict=True):
                sides.append(len(traces[piece]))
                traces[piece].append(Trace(there, axis, orders, length))
            found.append(Interface(Joint((a, b), points), (sides[0], sides[1])))
    return found, traces
