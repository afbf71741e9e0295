r"""Lanczos tridiagonalisation with full re-orthogonalisation.

From a unit vector :math:`q_1` it builds an orthonormal basis :math:`Q` of the Krylov space and the
tridiagonal :math:`T = Q^\top A Q`:

.. math:: A q_j = \beta_{j-1} q_{j-1} + \alpha_j q_j + \beta_j q_{j+1}.

Eigenvalues of :math:`T` approach those of :math:`A`, extreme ones first, and the residual of a Ritz
pair is :math:`\beta_k |s_k|` with the last entry of its eigenvector of :math:`T`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    NonFiniteError,
    OnFailure,
    Report,
    SettingsError,
    Status,
    apply_on_failure,
    check_choice,
    check_count,
)
from solvers.curvature._products import SymmetricOperator

__all__ = ["Eigenpairs", "Tridiagonal", "extreme_eigenpairs", "lanczos"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tridiagonal:
    """A symmetric operator seen from its Krylov space.

    Attributes:
        diagonal: ``alpha``, shape ``(k,)``.
        off_diagonal: ``beta``, shape ``(k,)``; the last one couples to what was left out and is
            zero when the Krylov space is invariant.
        basis: Orthonormal rows, shape ``(k, n)``.
    """

    diagonal: Float[Tensor, " k"]
    off_diagonal: Float[Tensor, " k"]
    basis: Float[Tensor, "k n"]

    def matrix(self) -> Float[Tensor, "k k"]:
        """The tridiagonal matrix."""
        beta = self.off_diagonal[:-1]
        return torch.diag(self.diagonal) + torch.diag(beta, 1) + torch.diag(beta, -1)

    def ritz(self) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k"], Float[Tensor, " k"]]:
        """Ritz values in rising order, their vectors in the basis (columns), and residuals."""
        values, vectors = torch.linalg.eigh(self.matrix())
        return values, vectors, (self.off_diagonal[-1] * vectors[-1]).abs()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eigenpairs:
    """Eigenvalues with vectors and a report of each.

    Attributes:
        values: Shape ``(k,)``, the asked-for end of the spectrum first.
        vectors: Unit rows, shape ``(k, n)``.
        report: Per pair; the residual is ``|A x - lambda x|`` over the largest ``|lambda|`` seen.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "k n"]
    report: Report


def lanczos(
    operator: SymmetricOperator,
    *,
    steps: int,
    start: Float[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> Tridiagonal:
    """Run Lanczos from one vector.

    Args:
        operator: Symmetric.
        steps: Size of the Krylov space; at most the operator's size is used.
        start: First direction; random if not given.
        generator: Source of the random direction, on the CPU; seed 0 by default.

    Returns:
        The tridiagonal form; shorter than ``steps`` if an invariant space was met.

    Raises:
        SettingsError: If ``steps`` is not positive or ``start`` is zero.
        NonFiniteError: If a product is not finite.

    Cost: one product a step, ``steps`` squared times n operations and ``steps`` n numbers.
    Reference: Golub & Van Loan 2013, "Matrix Computations", section 10.1; orthogonalised twice.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
        >>> form = lanczos(SymmetricOperator.of_matrix(matrix), steps=3)
        >>> [round(float(v), 6) for v in form.ritz()[0]]
        [1.0, 2.0, 5.0]
    """
    check_count("steps", steps)
    krylov = _Krylov(operator, start, generator)
    krylov.extend(steps)
    return krylov.form()


class _Krylov:
    """A Krylov space that grows."""

    def __init__(
        self, operator: SymmetricOperator, start: Tensor | None, generator: torch.Generator | None
    ) -> None:
        if start is None:
            source = generator or torch.Generator().manual_seed(0)
            start = torch.randn(operator.size, generator=source, dtype=torch.float64)
        q = start.to(operator.device, operator.dtype)
        length = torch.linalg.vector_norm(q)
        if not bool(length > 0):
            raise SettingsError("start: got the zero vector, expected a direction")
        self.operator = operator
        self.basis = q.new_zeros(0, operator.size)
        self.alpha: list[Tensor] = []
        self.beta: list[Tensor] = []
        self._next = q / length
        self._scale = 0.0

    @property
    def is_invariant(self) -> bool:
        """Whether nothing was left out."""
        return bool(self.beta) and float(self.beta[-1]) == 0.0

    def extend(self, steps: int) -> None:
        """Grow to so many steps, or until the space is invariant."""
        count = min(steps, self.operator.size)
        grown = self.basis.new_zeros(max(count, len(self.alpha)), self.operator.size)
        grown[: len(self.alpha)] = self.basis[: len(self.alpha)]
        self.basis = grown
        while len(self.alpha) < count and not self.is_invariant:
            self._step()

    def _step(self) -> None:
        k, q = len(self.alpha), self._next
        self.basis[k] = q
        w = self.operator(q)
        if not bool(torch.isfinite(w).all()):
            raise NonFiniteError(
                f"product with the operator at Lanczos step {k} is not finite; look at the point "
                "where the curvature is taken",
                name="operator",
                step=k,
            )
        self.alpha.append(q @ w)
        known = self.basis[: k + 1]
        for _ in range(2):
            w = w - known.T @ (known @ w)
        beta = torch.linalg.vector_norm(w)
        self._scale = max(self._scale, float(self.alpha[-1].abs()), float(beta))
        floor = 100 * torch.finfo(q.dtype).eps * self._scale
        if k + 1 == self.operator.size or float(beta) <= floor:
            beta = torch.zeros_like(beta)
        else:
            self._next = w / beta
        self.beta.append(beta)

    def form(self) -> Tridiagonal:
        """What was found so far."""
        return Tridiagonal(
            diagonal=torch.stack(self.alpha),
            off_diagonal=torch.stack(self.beta),
            basis=self.basis[: len(self.alpha)],
        )


def extreme_eigenpairs(
    operator: SymmetricOperator,
    count: int = 1,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    tolerance: float = 1e-8,
    max_steps: int | None = None,
    generator: torch.Generator | None = None,
    on_failure: OnFailure = "raise",
) -> Eigenpairs:
    """Find eigenpairs at an end of the spectrum.

    Args:
        operator: Symmetric. Of an eigenvalue that occurs several times only one copy is found,
            because the Krylov space of one vector holds one.
        count: Pairs wanted.
        which: End of the spectrum, or the largest absolute values.
        tolerance: Residual of a pair over the largest absolute eigenvalue.
        max_steps: Size of the largest Krylov space; ``20 count + 100`` by default, at most n.
        generator: Source of the first direction; seed 0 by default.
        on_failure: What happens if a pair misses the tolerance.

    Returns:
        The pairs with a report.

    Raises:
        SettingsError: If ``count`` does not fit the size of the operator.
        NotConvergedError: If a pair misses the tolerance and ``on_failure="raise"``.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64))
        >>> round(float(extreme_eigenpairs(SymmetricOperator.of_matrix(matrix)).values[0]), 6)
        30.0
    """
    check_choice("which", which, ("largest", "smallest", "magnitude"))
    if not 1 <= count <= operator.size:
        raise SettingsError(f"count: got {count}, expected 1 to {operator.size}, the size")
    limit = min(max_steps or 20 * count + 100, operator.size)
    krylov = _Krylov(operator, None, generator)
    steps = min(max(2 * count, 10), limit)
    while True:
        krylov.extend(steps)
        form = krylov.form()
        values, inner, residuals = form.ritz()
        order = _order(values, which)[:count]
        scale = values.abs().max().clamp(min=torch.finfo(values.dtype).tiny)
        relative = residuals[order] / scale
        found = len(order) == count and bool((relative <= tolerance).all())
        if found or steps == limit or krylov.is_invariant:
            break
        steps = min(steps + steps // 2, limit)
    size = len(order)
    missed = torch.full((size,), int(Status.MAX_ITERATIONS))
    report = Report(
        status=torch.where(relative.cpu() <= tolerance, int(Status.CONVERGED), missed),
        iterations=torch.full((size,), len(form.diagonal)),
        residual=relative.cpu(),
    )
    pairs = Eigenpairs(values=values[order], vectors=inner[:, order].T @ form.basis, report=report)
    apply_on_failure(report, on_failure, solution=pairs, what="extreme_eigenpairs")
    return pairs


def _order(values: Tensor, which: str) -> Tensor:
    key = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which]
    return torch.argsort(key)
