"""How far fields are from the reference of their problem."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solvers.pde import Initial, Neumann, Periodic, Problem, evaluation_grid, sample

__all__ = ["ErrorMeter", "is_up_to_constant"]

_GRID = {1: (401,), 2: (256, 101), 3: (41, 41, 21)}
"""Points along each axis at which errors are measured, by number of axes."""


class ErrorMeter:
    """Relative L2 error of fields on a fixed grid, the reference evaluated once."""

    def __init__(self, problem: Problem) -> None:
        counts = _GRID.get(problem.domain.dimension, (9,))
        self._points = evaluation_grid(problem, *counts)
        values = problem.reference_values(self._points)
        self._loose = [
            k for k, name in enumerate(problem.fields) if is_up_to_constant(problem, name)
        ]
        self._slices = self._slices_of_time(problem)
        self._values = self._centred(torch.stack([values[name] for name in problem.fields], dim=1))

    def __call__(self, network: nn.Module) -> float:
        with torch.no_grad():
            difference = self._centred(network(self._points)) - self._values
        return float(difference.norm() / self._values.norm())

    def _slices_of_time(self, problem: Problem) -> Tensor:
        if not (self._loose and problem.domain.has_time):
            return torch.zeros(len(self._points), dtype=torch.int64)
        times = self._points[:, problem.domain.axis("t")].contiguous()
        slices: Tensor = torch.unique(times, return_inverse=True)[1]
        return slices

    def _centred(self, values: Tensor) -> Tensor:
        """Take the mean over space off fields that are given up to a constant at each time."""
        values = values.clone()
        for k in self._loose:
            count = int(self._slices.max()) + 1
            sums = torch.zeros(count, dtype=values.dtype).index_add_(0, self._slices, values[:, k])
            values[:, k] -= (sums / torch.bincount(self._slices))[self._slices]
        return values


def is_up_to_constant(problem: Problem, name: str) -> bool:
    """Whether only derivatives of a field in space matter, as of the pressure of a flow.

    That is so if the equations hold no value and no rate of it and no condition gives its value.
    Without a rate, a value at the start says nothing about later.
    """
    free = (Initial, Neumann, Periodic)
    if any(
        not isinstance(c, free) and name in c.bound_fields(problem.fields)
        for c in problem.conditions
    ):
        return False
    domain = problem.domain
    place = domain.axis("t") if domain.has_time else None
    space = [sum(i) - (i[place] if place is not None else 0) for i in problem.derivatives[name]]
    if any(order == 0 for order in space[1:]):
        return False
    generator = torch.Generator().manual_seed(0)
    points = sample(domain, 8)
    fields = {
        field: {
            i: torch.randn(8, generator=generator, dtype=torch.float64)
            for i in problem.derivatives[field]
        }
        for field in problem.fields
    }
    zero = (0,) * domain.dimension
    moved = {**fields, name: {**fields[name], zero: fields[name][zero] + 1.0}}
    before, after = (problem.residual_terms(f, domain.split(points)) for f in (fields, moved))
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
