r"""Conjugate gradients that learn their slow directions from the first solve of a sequence."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, check_count
from solvers.linear import (
    Directions,
    Items,
    LinearOperator,
    Multigrid,
    Outcome,
    Preconditioner,
    Prepared,
    PreparedPreconditioner,
    Trail,
    check_rtol,
    runs_in_double,
    widen,
)

__all__ = ["RecycledConjugateGradient"]

_FEWEST_STEPS = 25
_LEAST_RISE = 10.0
_LEAST_GAIN = 1.3
# What a direction costs in a step, as part of the step without any.
_COST = 0.035
# Error of the lowest Ritz value and median of those that are to be kept, relative to them. A few
# slow modes are found to a percent, values of a dense spectrum only to a tenth or worse: then
# nothing is gained.
_LARGEST_ERROR = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycledConjugateGradient:
    r"""Preconditioned conjugate gradients for sequences of systems that change little.

    The coefficients of the first solve give the Ritz values of the preconditioned matrix, its
    residuals the Ritz vectors. Where a few of them are slow and the rest is not, they are added to
    the preconditioner of the later solves, which stays linear, symmetric and positive definite:
    :math:`B + \sum_i (1 - \lambda_i)\, u_i u_i^\top / \langle u_i, A u_i\rangle` takes
    :math:`A u_i` to :math:`u_i`. Nothing is trained; each new operator costs one
    product with every direction.

    The switch: directions are kept if the first solve took more than 25 steps, the first value
    left out is more than 10 times the lowest one, the square root of that ratio outweighs the cost
    of the directions by 1.3, and the values have settled: among many slow modes they have not, and
    the directions would be of no use. A solve that they do not make cheaper drops them.

    Prepare for the first operator, solve, and go on with ``prepared = prepared.update(A)`` when the
    coefficients have moved; directions stay. Threads may share a preparation: they also share what
    it learns, from the first solve that ends.

    Args:
        preconditioner: The one to improve.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`.
        max_iterations: Limit of the iterations.
        directions: Most directions.
        steps: Most steps of the first solve to learn from.

    Raises:
        SettingsError: If a number is not positive, or there are more than 64 directions.

    Cost: a step passes twice over every direction, about 3.5 % of a multigrid step each; memory of
    the first solve four bytes a cell and step, afterwards two a cell and direction.
    Reference: in the spirit of Kaneda et al. 2023, directions learned from the problem and reused;
    Gratton, Sartenaer & Tshimanga 2011, "On a class of limited memory preconditioners for large
    scale linear systems".

    Example:
        >>> from solvers.linear import PoissonOperator
        >>> A = PoissonOperator.from_cells(torch.zeros(12, 12, 12), outside=2)
        >>> prepared = RecycledConjugateGradient().prepare(A)
        >>> b = torch.ones(12, 12, 12, dtype=torch.float64)
        >>> for _ in range(2):
        ...     x = prepared.solve(b).value
        ...     prepared = prepared.update(A)
        >>> bool((A @ x - b).norm() < 1e-7 * b.norm())
        True
    """

    preconditioner: Preconditioner = field(default_factory=Multigrid)
    rtol: float = 1e-8
    max_iterations: int = 1000
    directions: int = 16
    steps: int = 128

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        for name in ("max_iterations", "directions", "steps"):
            check_count(name, getattr(self, name))
        if self.directions > 64:
            raise SettingsError(f"directions: got {self.directions}, expected at most 64")

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Prepare the preconditioner; nothing is known of the sequence yet.

        Args:
            operator: Symmetric positive definite or semidefinite.

        Raises:
            SettingsError: If the operator is not symmetric.
        """
        if not operator.is_symmetric:
            raise SettingsError(f"RecycledConjugateGradient: {operator!r} is not symmetric")
        return _PreparedRecycled(operator, self, _Memory())


class _Memory:
    """What a sequence has learned; shared by all its preparations, and by threads."""

    def __init__(self) -> None:
        self.directions: Directions | None = None
        self.plain_steps = 0
        self.is_settled = False
        self._lock = threading.Lock()

    def settle(self, trail: Trail, steps: int, most: int) -> int:
        """Decide after the first solve to end, from its coefficients: how many directions."""
        with self._lock:
            if self.is_settled:
                return 0
            self.is_settled = True
            self.plain_steps = steps
            if steps <= _FEWEST_STEPS or len(trail.lengths) < 3:
                return 0
            return _choose_count(trail.ritz_values()[0], trail.ritz_errors(), most)

    def judge(self, directions: Directions, steps: int) -> None:
        """Drop directions that cost more than they save."""
        with self._lock:
            is_worse = steps * (1.0 + _COST * len(directions.shares)) > self.plain_steps
            if is_worse and self.directions is directions:
                self.directions = None


def _choose_count(values: np.ndarray[Any, Any], errors: np.ndarray[Any, Any], most: int) -> int:
    """How many directions to keep; 0 for none."""
    values = np.maximum(values, 1e-300)
    counts = np.arange(1, min(most, len(values) - 1) + 1)
    is_settled = [max(errors[0], np.median(errors[:count])) < _LARGEST_ERROR for count in counts]
    gains = np.sqrt(values[counts] / values[0]) / (1.0 + _COST * counts)
    gains = np.where(is_settled, gains, 0.0)
    best = int(np.argmax(np.where(values[counts] < 0.8, gains, 0.9 * gains)))
    rise = values[counts[best]] / values[0]
    return int(counts[best]) if rise > _LEAST_RISE and gains[best] > _LEAST_GAIN else 0


class _PreparedRecycled(Prepared):
    def __init__(
        self,
        operator: LinearOperator,
        solver: RecycledConjugateGradient,
        memory: _Memory,
        inner: PreparedPreconditioner | None = None,
    ):
        self._plain = widen(operator.detach())
        self._inner = solver.preconditioner.prepare(self._plain) if inner is None else inner
        super().__init__(operator, solver, f"RecycledConjugateGradient with {self._inner.label}")
        self._settings = solver
        self._memory = memory

    def update(self, operator: LinearOperator) -> Prepared:
        """Prepare for moved coefficients, with what the sequence has learned."""
        inner = self._inner.update(widen(operator.detach()))
        return _PreparedRecycled(operator, self._settings, self._memory, inner)

    @runs_in_double
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        memory, settings = self._memory, self._settings
        is_one = b.ndim == len(self._plain.domain) and not self._plain.batch
        kept = settings.steps if is_one and not memory.is_settled else 0
        directions = memory.directions
        outcome, trail = self._solve(b, x0, directions, kept)
        steps = int(outcome.iterations.max())
        if kept:
            count = memory.settle(trail, steps, settings.directions)
            if count:
                # Most sequences have no use for the vectors, and many of them cost more than a few
                # steps: where they are of use, the same solve is made again.
                _, trail = self._solve(b, x0, directions, kept, keeps_vectors=True)
                memory.directions = trail.directions(count)
        elif directions is not None and x0 is None:
            memory.judge(directions, steps)
        used = torch.full_like(
            outcome.iterations, 0 if directions is None else len(directions.shares)
        )
        return Outcome(
            value=outcome.value,
            status=outcome.status,
            iterations=outcome.iterations,
            residual=outcome.residual,
            counts={**outcome.counts, "directions": used},
        )

    def _solve(
        self,
        b: Tensor,
        x0: Tensor | None,
        directions: Directions | None,
        kept: int,
        *,
        keeps_vectors: bool = False,
    ) -> tuple[Outcome, Trail]:
        settings = self._settings
        native = self._inner.recycled_conjugate_gradient(
            b,
            x0,
            rtol=settings.rtol,
            max_iterations=settings.max_iterations,
            directions=directions,
            kept=kept,
            keeps_vectors=keeps_vectors,
        )
        if native is not None:
            return native
        self._plain.check()
        return _iterate(self._plain, self._inner, b, x0, settings, directions, kept, keeps_vectors)


@torch.no_grad()
def _iterate(
    A: LinearOperator,
    inner: PreparedPreconditioner,
    b: Tensor,
    x0: Tensor | None,
    settings: RecycledConjugateGradient,
    directions: Directions | None,
    kept: int,
    keeps_vectors: bool,
) -> tuple[Outcome, Trail]:
    """The iteration on tensors."""
    items = Items(A, b, settings.rtol, A.null_space())
    axes, layout = len(A.domain), ("tensors", A.domain)
    known = directions if directions is not None and directions.layout == layout else None
    added = None if known is None else _weigh(A, known)
    x = items.start(x0)
    r, _ = items.observe(x, items.residual(x))
    restart = torch.ones_like(items.running)
    p, last = torch.zeros_like(r), torch.ones_like(items.b_norm)
    vectors: list[Tensor] = []
    numbers: list[list[float]] = []
    for _ in range(settings.max_iterations):
        if not bool(items.running.any()):
            break
        items.iterations = items.iterations + items.running
        z = inner.apply(r)
        if added is not None:
            vectors_known, weights = added
            along = r.flatten(-axes) @ vectors_known.T
            z = z + ((along * weights) @ vectors_known).reshape(z.shape)
        overlap = items.dot(z, r)
        items.demand_positive(overlap)
        beta = torch.where(restart | ~items.running, 0.0, overlap / last)
        p = z + items.spread(beta) * p
        last = torch.where(items.running, overlap, 1.0)
        Ap = A.apply(p)
        curvature = items.dot(p, Ap)
        items.demand_positive(curvature)
        alpha = torch.where(items.running, last / curvature, 0.0)
        if len(numbers) < kept and bool(items.running.all()):
            if keeps_vectors:
                vectors.append(z.flatten())
            numbers.append([float(alpha), float(beta), float(overlap)])
        x = torch.where(items.spread(alpha != 0), x + items.spread(alpha) * p, x)
        r = torch.where(items.spread(alpha != 0), r - items.spread(alpha) * Ap, r)
        r, restart = items.observe(x, r)
    table = np.array(numbers).reshape(-1, 3)
    trail = Trail(
        vectors=torch.stack(vectors) if vectors else b.new_zeros(0, A.size),
        lengths=table[:, 0],
        overlaps=table[:, 1],
        sizes=table[:, 2],
        layout=layout,
    )
    return items.finish(x), trail


def _weigh(A: LinearOperator, known: Directions) -> tuple[Tensor, Tensor]:
    """The directions and their weights for an operator."""
    vectors = known.vectors.to(dtype=A.dtype, device=A.device)
    moved = torch.stack([A.apply(u.reshape(A.domain)).flatten() for u in vectors])
    energies = (vectors * moved).sum(1).cpu().numpy()
    return vectors, torch.from_numpy(known.weights(energies)).to(vectors)
