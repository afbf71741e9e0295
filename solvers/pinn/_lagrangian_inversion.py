"""Which label is at a place: the map from labels to positions inverted, point by point.

On a line the map is monotone: Newton's method inside a bracket that shrinks. In a plane: Newton's
method from the nearest of a grid of labels, each step halved until the distance falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.core import Report, Solution, Status
from solvers.pde import Problem
from solvers.pinn._characteristics import LabelDomain

__all__ = ["describe_failures", "find_labels", "map_and_jacobian", "settle"]

_LINE_LABELS, _PLANE_LABELS = 128, 33
"""Labels along an axis where the search begins."""

_SLICES = 64
"""Most times at which the grid of labels is followed."""

_CHUNK = 4096
_MOST_ITERATIONS = 80
_TOLERANCE = 1e-13
"""Distance of a position from its place, over the size of the domain."""

_LEAST_STEP = 2.0**-20
_REACH = 1e-9
"""How far beyond the last label one may lie, over the width of the labels."""


def map_and_jacobian(
    network: nn.Module, labels: Float[Tensor, "N d"], times: Float[Tensor, " N"]
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d d"]]:
    """Positions of labels and their derivatives ``F[i, a] = dX_i / dxi_a``, without a graph."""
    d = labels.shape[1]
    with torch.enable_grad():
        variable = labels.detach().clone().requires_grad_()
        positions = network(torch.cat([variable, times.detach()[:, None]], 1))[:, :d]
        rows = [
            torch.autograd.grad(positions[:, i].sum(), variable, retain_graph=i + 1 < d)[0]
            for i in range(d)
        ]
    return positions.detach(), torch.stack(rows, 1)


def settle(
    network: nn.Module,
    labels: Float[Tensor, "N d"],
    places: Float[Tensor, "N d"],
    times: Float[Tensor, " N"],
) -> Float[Tensor, "N d"]:
    """Give labels the derivatives that they have by places, times and parameters.

    One Newton step from the solution, which changes the value by rounding only.
    """
    _, F = map_and_jacobian(network, labels, times)
    position = network(torch.cat([labels, times[:, None]], 1))[:, : labels.shape[1]]
    step: Tensor = torch.linalg.solve(F, (position - places).unsqueeze(-1)).squeeze(-1)
    return labels - step


def find_labels(
    network: nn.Module,
    problem: Problem,
    labels: LabelDomain,
    places: Float[Tensor, "N d"],
    times: Float[Tensor, " N"],
) -> Solution[Tensor]:
    """Find the labels that are at places.

    Args:
        network: Labels and times to positions, then states.
        problem: The problem in space.
        labels: Its labels.
        places: Where, shape ``(N, d)``.
        times: When, shape ``(N,)``.

    Returns:
        Labels ``(N, d)`` with a report per point: ``INFEASIBLE`` where no label comes to,
        ``BREAKDOWN`` where labels have crossed, so that several are at one place, ``STALLED`` or
        ``MAX_ITERATIONS`` where the search failed; residuals are distances over the size of the
        domain.
    """
    places, times = places.detach(), times.detach()
    if not len(places):
        return _solution(places, _State.of(places), torch.zeros(0, dtype=torch.bool), labels, 1.0)
    search = _Search(network, problem, labels)
    parts = [
        search.run(p, t) for p, t in zip(places.split(_CHUNK), times.split(_CHUNK), strict=True)
    ]
    reports = [part.report for part in parts]
    return Solution(
        value=torch.cat([part.value for part in parts]),
        report=Report(
            status=torch.cat([r.status for r in reports]),
            iterations=torch.cat([r.iterations for r in reports]),
            residual=torch.cat([r.residual for r in reports]),
        ),
    )


@dataclass
class _State:
    """Labels on their way."""

    labels: Tensor
    distance: Tensor
    iterations: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> _State:
        count = len(labels)
        return cls(
            labels.clone(),
            torch.full((count,), torch.inf, dtype=torch.float64),
            torch.zeros(count, dtype=torch.int64),
        )


def _solution(
    places: Tensor, state: _State, is_folded: Tensor, labels: LabelDomain, size: float
) -> Solution[Tensor]:
    residual = state.distance / size
    is_found = residual <= 100 * _TOLERANCE
    lower, upper = labels.box.lower[:-1], labels.box.upper[:-1]
    slack, is_fixed = _REACH * (upper - lower), torch.tensor(labels.periods) == 0
    beyond = (state.labels < lower - slack) | (state.labels > upper + slack)
    at_edge = (state.labels <= lower + slack) | (state.labels >= upper - slack)
    is_missing = torch.where(is_found[:, None], beyond, at_edge | beyond) & is_fixed
    status = torch.full((len(places),), int(Status.STALLED))
    status[state.iterations >= _MOST_ITERATIONS] = int(Status.MAX_ITERATIONS)
    status[is_found] = int(Status.CONVERGED)
    status[is_missing.any(1)] = int(Status.INFEASIBLE)
    status[is_folded] = int(Status.BREAKDOWN)
    status[~torch.isfinite(residual)] = int(Status.NON_FINITE)
    report = Report(status=status, iterations=state.iterations, residual=residual)
    return Solution(value=state.labels, report=report)


class _Search:
    """The grid of labels where searches begin, followed through time."""

    def __init__(self, network: nn.Module, problem: Problem, labels: LabelDomain) -> None:
        self._network, self._labels = network, labels
        space = problem.domain.lower[:-1], problem.domain.upper[:-1]
        self._lower, self._upper = space
        self._size = float((space[1] - space[0]).max())
        self._periods = torch.tensor(labels.periods, dtype=torch.float64)

    def run(self, places: Tensor, times: Tensor) -> Solution[Tensor]:
        state = _State.of(places)
        slices, back = self._slices(times)
        positions, jacobians, grid = self._grid(slices)
        is_line = places.shape[1] == 1
        is_folded = self._folded(positions, jacobians)[back]
        if is_line:
            low, high = self._brackets(positions[:, :, 0], grid[:, 0], places[:, 0], back)
            self._bracketed(state, places, times, low, high)
        else:
            state.labels = self._nearest(positions, grid, places, back)
            self._damped(state, places, times)
        return _solution(places, state, is_folded, self._labels, self._size)

    def _slices(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Times at which the grid is looked at, and the one that is nearest to each point."""
        slices, back = torch.unique(times, return_inverse=True)
        if len(slices) > _SLICES and len(self._lower) > 1:
            slices = torch.linspace(float(times.min()), float(times.max()), _SLICES).double()
            back = (times[:, None] - slices).abs().argmin(1)
        return slices, back

    def _grid(self, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions ``(S, K, d)`` and determinants ``(S, K)`` of a grid of labels ``(K, d)``."""
        box, d = self._labels.box, len(self._lower)
        count = _LINE_LABELS if d == 1 else _PLANE_LABELS
        lines = [torch.linspace(*box.bounds[axis], count).double() for axis in box.axes[:-1]]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).view(-1, d)
        many = grid.repeat(len(slices), 1), slices.repeat_interleave(len(grid))
        shape = (len(slices), len(grid))
        if d == 1:  # the order of positions tells enough
            with torch.no_grad():
                positions = self._network(torch.stack([many[0][:, 0], many[1]], 1))[:, :1]
            return positions.view(*shape, d), torch.ones(shape), grid
        positions, F = map_and_jacobian(self._network, *many)
        return positions.view(*shape, d), torch.linalg.det(F).view(shape), grid

    def _folded(self, positions: Tensor, determinants: Tensor) -> Tensor:
        """Whether labels have crossed at a time, inside the domain."""
        inside = (positions >= self._lower) & (positions <= self._upper)
        counts = (inside | (self._periods > 0)).all(-1)
        if positions.shape[-1] > 1:
            return (counts & (determinants <= 0)).any(1)
        backward = positions[:, :, 0].diff(dim=1) <= 0
        return (backward & (counts[:, 1:] | counts[:, :-1])).any(1)

    def _brackets(
        self, positions: Tensor, grid: Tensor, x: Tensor, back: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Labels between which each position must lie."""
        moved = positions - grid
        most, least = moved.amax(1), moved.amin(1)
        spread = most - least + (grid[-1] - grid[0]) / len(grid)
        return x - (most + 0.1 * spread)[back], x - (least - 0.1 * spread)[back]

    def _bracketed(
        self, state: _State, places: Tensor, times: Tensor, low: Tensor, high: Tensor
    ) -> None:
        x, scale = places[:, 0], self._size + float(places.abs().max())
        label = (low + high) / 2
        for _ in range(_MOST_ITERATIONS):
            position, F = map_and_jacobian(self._network, label[:, None], times)
            error, slope = position[:, 0] - x, F[:, 0, 0]
            better = error.abs() < state.distance
            state.labels[better, 0] = label[better]
            state.distance = torch.where(better, error.abs(), state.distance)
            going = state.distance > _TOLERANCE * scale
            if not bool(going.any()):
                break
            state.iterations += going
            low, high = torch.where(error < 0, label, low), torch.where(error < 0, high, label)
            newton = label - error / slope
            is_inside = (newton > low) & (newton < high) & (slope > 0)
            label = torch.where(is_inside, newton, (low + high) / 2)

    def _nearest(self, positions: Tensor, grid: Tensor, places: Tensor, back: Tensor) -> Tensor:
        """Labels of the grid whose positions are nearest, over all periods."""
        found, rings = torch.empty_like(places), self._on_rings(places)
        for k in range(len(positions)):
            rows = (back == k).nonzero()[:, 0]
            if len(rows):
                targets = self._on_rings(positions[k])
                # |p - q|^2 less |p|^2, which is the same for all labels.
                far = torch.addmm(targets.square().sum(1), rings[rows], targets.T, alpha=-2.0)
                best = far.argmin(1)
                found[rows] = grid[best] + self._turns(places[rows] - positions[k][best])
        return found

    def _on_rings(self, places: Tensor) -> Tensor:
        """Places where a periodic axis is a circle of its length, so that chords are distances."""
        columns = []
        for x, period in zip(places.unbind(1), self._periods.tolist(), strict=True):
            angle = x * (2 * math.pi / period) if period else x
            radius = period / (2 * math.pi)
            columns += [radius * angle.cos(), radius * angle.sin()] if period else [x]
        return torch.stack(columns, 1)

    def _turns(self, apart: Tensor) -> Tensor:
        lengths = torch.where(self._periods > 0, self._periods, 1.0)
        return torch.where(self._periods > 0, lengths * (apart / lengths).round(), 0.0)

    def _damped(self, state: _State, places: Tensor, times: Tensor) -> None:
        """Newton's method with steps that are halved until the distance falls."""
        box = self._labels.box
        is_ring = self._periods > 0
        least = torch.where(is_ring, -torch.inf, box.lower[:-1])
        most = torch.where(is_ring, torch.inf, box.upper[:-1])
        rows = torch.arange(len(places))
        position, F = map_and_jacobian(self._network, state.labels, times)
        error = position - places
        state.distance = error.norm(dim=1)
        share = torch.ones(len(places), dtype=torch.float64)
        for _ in range(_MOST_ITERATIONS):
            going = (state.distance[rows] > _TOLERANCE * self._size) & (share > _LEAST_STEP)
            rows, share, error, F = rows[going], share[going], error[going], F[going]
            if not len(rows):
                break
            state.iterations[rows] += 1
            newton = torch.linalg.lstsq(F, error.unsqueeze(-1)).solution.squeeze(-1)
            trial = state.labels[rows] - share[:, None] * newton
            trial = torch.minimum(torch.maximum(trial, least), most)
            position, slopes = map_and_jacobian(self._network, trial, times[rows])
            there = position - places[rows]
            better = there.norm(dim=1) < state.distance[rows]
            state.labels[rows[better]] = trial[better]
            state.distance[rows[better]] = there[better].norm(dim=1)
            error = torch.where(better[:, None], there, error)
            F = torch.where(better[:, None, None], slopes, F)
            share = torch.where(better, (2 * share).clamp(max=1.0), share / 2)


def describe_failures(
    solution: Solution[Tensor], axes: Sequence[str], points: Float[Tensor, "N D"]
) -> str:
    """Name the points whose label was not found, by what went wrong.

    Args:
        solution: From `find_labels`.
        axes: Names of the coordinates.
        points: Places and times.
    """
    texts = {
        Status.INFEASIBLE: "no label reaches",
        Status.BREAKDOWN: "labels have crossed at",
        Status.NON_FINITE: "positions are not finite at",
        Status.STALLED: "the search stalled at",
        Status.MAX_ITERATIONS: "the search took too long at",
    }
    lines = []
    for status, text in texts.items():
        which = (solution.status == status).nonzero()[:, 0]
        if len(which):
            first = ", ".join(
                f"{axis} = {x:.4g}" for axis, x in zip(axes, points[which[0]].tolist(), strict=True)
            )
            lines.append(f"{text} {len(which)} of {len(points)} points, the first {first}")
    return "; ".join(lines)
