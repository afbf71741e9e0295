r"""Levenberg-Marquardt for batches of small, tall problems.

Each item minimises :math:`C(w) = \tfrac12 \|r(w)\|^2 + \tfrac12 \rho \|w\|^2`. A problem is asked
for one thing only: cost, gradient and matrix at a point, summed over the rows as they stream by, so
that no Jacobian is ever stored. The rest happens in matrices of the size of ``w``.

A step solves :math:`(H + \lambda D)\, s = -g` with :math:`D = \operatorname{diag} H` (Marquardt
1963); :math:`\lambda` follows the ratio of actual to predicted decrease (Nielsen 1999, "Damping
parameter in Marquardt's method"). :math:`H` is that of Gauss and Newton at first and the exact one
near the solution, where steps become those of Newton.

The iteration ends when what a step can still remove is small,

.. math:: (1 + \lambda)\, g^\top (H + \lambda D)^{-1} g \le
          \tau^2 \max(2 C,\; w^\top H w),

a number without scale: multiplying residuals by a factor, or changing the basis of ``w``, changes
neither side's ratio. The second entry of the maximum is the size of the residual's linear part; it
decides where the residual itself falls to zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.core import Report, Solution, Status, check_finite, check_positive, check_shape

__all__ = ["LeastSquaresProblem", "LevenbergMarquardt", "NormalEquations", "first_guess"]

NOISE = 1e-13
"""Predicted decrease, in units of the scale, below which differences of costs are rounding."""
TINY_MOST = 20
NEWTON_FROM = 1e-4
LAMBDA_FIRST, LAMBDA_LEAST, LAMBDA_MOST = 1e-3, 1e-14, 1e14


class NormalEquations(NamedTuple):
    """Cost, gradient and matrix of a few items.

    Attributes:
        cost: Shape ``(e,)``.
        gradient: Shape ``(e, N)``.
        matrix: Symmetric, shape ``(e, N, N)``.
    """

    cost: Tensor
    gradient: Tensor
    matrix: Tensor


class LeastSquaresProblem(ABC):
    """A batch of least-squares problems of the same size.

    Attributes:
        items: Number of problems ``E``.
        unknowns: Number of unknowns ``N`` of each.
        tensors: What the cost depends on besides ``w``, batch first; all float64.
    """

    items: int
    unknowns: int
    tensors: tuple[Tensor, ...]

    @abstractmethod
    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items.

        Args:
            w: Where, shape ``(e, N)``.
            items: Which, shape ``(e,)``.
            is_exact: Give the exact Hessian instead of that of Gauss and Newton.
        """

    @abstractmethod
    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> Sequence[Tensor | None]:
        r"""Gradients of :math:`\langle v, \nabla C(w)\rangle` in ``tensors``.

        They have the shapes of ``tensors``, and are zero for other items.
        """

    def minimize(
        self, solver: LevenbergMarquardt, start: Tensor
    ) -> tuple[Solution[Tensor], NormalEquations | None]:
        """Run the iteration from ``start``, shape ``(E, N)``.

        Returns:
            The solution, and the exact equations of all items there, if the iteration ended with
            them for every item that converged.
        """
        return _minimize(self, solver, start)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevenbergMarquardt:
    """Settings of the iteration.

    Args:
        tolerance: The largest share of the residual that a step may still remove, see the module;
            about the relative error of the fitted residual.
        max_iterations: Evaluations after the first, for each item.

    Raises:
        SettingsError: If one of them is not positive.

    Example:
        >>> from solvers.nonlinear import PointwiseProblem
        >>> t = torch.linspace(0, 1, 50, dtype=torch.float64)
        >>> problem = PointwiseProblem(
        ...     {"fit": lambda u, y: u - y}, {"fit": torch.stack([t**0, t], -1)[None, :, None]},
        ...     {"fit": [3 - 2 * t[None]]},
        ... )
        >>> solution = LevenbergMarquardt().solve(problem)
        >>> [round(w, 6) for w in solution.value[0].tolist()]
        [3.0, -2.0]
    """

    tolerance: float = 1e-8
    max_iterations: int = 100

    def __post_init__(self) -> None:
        check_positive("tolerance", self.tolerance)
        check_positive("max_iterations", self.max_iterations)

    def solve(self, problem: LeastSquaresProblem, start: Tensor | None = None) -> Solution[Tensor]:
        """Minimise every item; no gradients.

        Args:
            problem: The batch.
            start: First guess, shape ``(E, N)``; zero by default.

        Returns:
            Minimisers, shape ``(E, N)``. The residual of the report is the quantity that the
            tolerance is for; ``cost`` and ``refused`` (steps) are among its counts. An item that
            did not converge has its best iterate.

        Raises:
            ShapeError: If ``start`` has another shape.
            NonFiniteError: If ``start`` is not finite.
        """
        guess = first_guess(problem, start)
        check_finite("start", guess)
        return self.minimum(problem, guess)[0]

    def minimum(
        self, problem: LeastSquaresProblem, guess: Tensor
    ) -> tuple[Solution[Tensor], NormalEquations | None]:
        """Minimise every item from a finite first guess, as `LeastSquaresProblem.minimize`.

        Args:
            problem: The batch.
            guess: Shape ``(E, N)``.
        """
        with torch.no_grad():
            solution, last = problem.minimize(self, guess.to(torch.float64, copy=True))
        report = solution.report
        is_lost = report.status == Status.NON_FINITE
        report = replace(report, residual=report.residual.masked_fill(is_lost, torch.nan))
        return Solution(value=solution.value, report=report), last


def first_guess(problem: LeastSquaresProblem, start: Tensor | None) -> Tensor:
    """Where an iteration begins.

    Args:
        problem: The batch.
        start: What the user gave, shape ``(E, N)``; zero if None.

    Returns:
        The same without gradient.

    Raises:
        ShapeError: If ``start`` has another shape.
    """
    if start is None:
        device = problem.tensors[0].device if problem.tensors else None
        size = (problem.items, problem.unknowns)
        return torch.zeros(size, dtype=torch.float64, device=device)
    check_shape("start", start, "E N", sizes={"E": problem.items, "N": problem.unknowns})
    return start.detach()


class _State:
    """The items that still iterate, all tensors with the same leading axis."""

    def __init__(self, items: Tensor, w: Tensor, at: NormalEquations):
        self.items, self.w, self.at = items, w, at
        self.damping = torch.full_like(at.cost, LAMBDA_FIRST)
        self.growth = torch.full_like(at.cost, 2.0)
        self.error = torch.full_like(at.cost, torch.inf)
        self.refused = torch.zeros_like(items)
        self.tiny = torch.zeros_like(items)
        self.is_exact = torch.zeros_like(items, dtype=torch.bool)
        self.may_be_exact = torch.ones_like(self.is_exact)

    def keep(self, chosen: Tensor) -> None:
        for name, value in vars(self).items():
            if isinstance(value, NormalEquations):
                setattr(self, name, NormalEquations(*(part[chosen] for part in value)))
            else:
                setattr(self, name, value[chosen])


def _minimize(
    problem: LeastSquaresProblem, solver: LevenbergMarquardt, start: Tensor
) -> tuple[Solution[Tensor], NormalEquations | None]:
    items = torch.arange(problem.items, device=start.device)
    value = start.clone()
    status = torch.full_like(items, int(Status.MAX_ITERATIONS))
    iterations, refused = torch.zeros_like(items), torch.zeros_like(items)
    residual = torch.zeros(problem.items, dtype=start.dtype, device=start.device)
    unknowns = problem.unknowns
    last = NormalEquations(
        torch.zeros_like(residual),
        torch.zeros_like(start),
        start.new_zeros(problem.items, unknowns, unknowns),
    )
    is_exact = torch.zeros_like(items, dtype=torch.bool)
    state = _State(items, start, problem.normal_equations(start, items))
    ends = torch.where(_is_finite(state.at), -1, int(Status.NON_FINITE))
    for iteration in range(solver.max_iterations + 1):
        step, trial = _propose(state)
        ends = torch.where((ends < 0) & (state.error <= solver.tolerance), 0, ends)
        if iteration == solver.max_iterations:
            ends = torch.where(ends < 0, int(Status.MAX_ITERATIONS), ends)
        done = ends >= 0
        if bool(done.any()):
            where = state.items[done]
            value[where], status[where] = state.w[done], ends[done]
            iterations[where], refused[where] = iteration, state.refused[done]
            residual[where], is_exact[where] = state.error[done], state.is_exact[done]
            for whole, part in zip(last, state.at, strict=True):
                whole[where] = part[done]
            left = ~done
            state.keep(left)
            step, trial = step[left], tuple(part[left] for part in trial)
        if not len(state.items):
            break
        ends = _advance(problem, state, step, trial)
    report = Report(
        status=status,
        iterations=iterations,
        residual=residual,
        counts={"cost": last.cost, "refused": refused},
    )
    is_complete = bool((is_exact | ~report.converged).all())
    return Solution(value=value, report=report), last if is_complete else None


def _propose(state: _State) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The damped step, whether there is one, its predicted decrease and the scale."""
    cost, g, H = state.at
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.amax(-1, keepdim=True)
    least = torch.where(largest > 0, 1e-30 * largest, 1.0)
    damping = state.damping[:, None] * torch.where(diagonal > least, diagonal, least)
    factor, info = torch.linalg.cholesky_ex(H + torch.diag_embed(damping))
    step = -torch.cholesky_solve(g[..., None], factor)[..., 0]
    is_definite = (info == 0) & step.isfinite().all(-1)
    decrement = -(g * step).sum(-1)
    energy = (state.w * (H @ state.w[..., None])[..., 0]).sum(-1)
    scale = torch.maximum(2 * cost, energy)
    square = (1 + state.damping) * decrement.clamp(min=0)
    error = torch.where(scale > 0, square / scale, 0.0).sqrt()
    state.error = torch.where(is_definite, error, torch.inf)
    predicted = 0.5 * (decrement + (damping * step * step).sum(-1))
    return step, (is_definite, predicted, scale)


def _advance(
    problem: LeastSquaresProblem, state: _State, step: Tensor, trial: tuple[Tensor, ...]
) -> Tensor:
    """Try the steps; give the status of items that ended by it, -1 for the others."""
    is_definite, predicted, scale = trial
    w = state.w + torch.where(is_definite[:, None], step, 0.0)
    is_near = is_definite & state.may_be_exact & (state.error < NEWTON_FROM)
    lost = ~is_definite & state.is_exact
    state.may_be_exact &= ~lost
    at = _evaluate(problem, w, state.items, is_near)
    is_tiny = is_definite & (predicted <= NOISE * scale)
    state.tiny += is_tiny
    ratio = torch.where(is_tiny, 1.0, (state.at.cost - at.cost) / predicted)
    good = is_definite & _is_finite(at) & (ratio > 0)
    moved = good | lost

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(moved.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    state.w = choose(w, state.w)
    state.at = NormalEquations(*(choose(a, b) for a, b in zip(at, state.at, strict=True)))
    state.is_exact = torch.where(moved, is_near, state.is_exact)
    shrink = (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 3)
    smaller = (state.damping * shrink).clamp(min=LAMBDA_LEAST)
    larger = state.damping * state.growth
    state.damping = torch.where(good, smaller, torch.where(lost, state.damping, larger))
    state.growth = torch.where(good, 2.0, torch.where(lost, state.growth, 2 * state.growth))
    state.refused += ~moved
    is_stuck = (state.tiny > TINY_MOST) | ~(state.damping <= LAMBDA_MOST)
    return torch.where(is_stuck, int(Status.STALLED), -1)


def _is_finite(at: NormalEquations) -> Tensor:
    return at.cost.isfinite() & at.gradient.isfinite().all(-1)


def _evaluate(
    problem: LeastSquaresProblem, w: Tensor, items: Tensor, is_near: Tensor
) -> NormalEquations:
    """Exact where near, otherwise that of Gauss and Newton."""
    if not bool(is_near.any()) or bool(is_near.all()):
        return problem.normal_equations(w, items, is_exact=bool(is_near.any()))
    order = torch.cat([is_near.nonzero()[:, 0], (~is_near).nonzero()[:, 0]])
    count = int(is_near.sum())
    near, far = order[:count], order[count:]
    exact = problem.normal_equations(w[near], items[near], is_exact=True)
    rough = problem.normal_equations(w[far], items[far])
    back = order.argsort()
    return NormalEquations(*(torch.cat(pair)[back] for pair in zip(exact, rough, strict=True)))
