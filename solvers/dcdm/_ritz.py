r"""Training vectors of the deep conjugate direction method: mixtures of Ritz vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_positive
from solvers.linear import LinearOperator

__all__ = ["RitzVectors", "lanczos"]

_LEAST = 1e-8
_LOW_WEIGHT = 9.0
_LOW_MARGIN = 0.05


@torch.no_grad()
def lanczos(
    A: LinearOperator, count: int, *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m n"]]:
    r"""Ritz values and vectors of a symmetric operator from a random start.

    Every vector is made orthogonal to all earlier ones twice, so that none is found again. The
    space ends early where it is invariant.

    Args:
        A: Symmetric operator, one system of ``n`` unknowns.
        count: Number of vectors ``m``, at most ``n``.
        generator: Random numbers of the start.

    Returns:
        Values in increasing order and unit vectors in float32, shape ``(m, n)``.

    Raises:
        SettingsError: If the operator is not symmetric, a batch, or smaller than ``count``.

    Cost: ``4 n m^2`` operations, ``m n`` numbers of eight bytes.
    Reference: Lanczos 1950; Parlett 1980, "The symmetric eigenvalue problem", chapter 13.

    Example:
        >>> from solvers.linear import DenseOperator
        >>> A = DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)))
        >>> [round(float(value), 6) for value in lanczos(A, 3)[0]]
        [1.0, 2.0, 5.0]
    """
    check_positive("count", count)
    if not A.is_symmetric or A.batch:
        raise SettingsError(f"lanczos: got {A!r}, expected one symmetric operator")
    if count > A.size:
        raise SettingsError(
            f"count: got {count}, expected at most {A.size}, the number of unknowns"
        )
    basis = torch.zeros(count, A.size, dtype=torch.float64, device=A.device)
    start = torch.randn(A.domain, dtype=torch.float64, generator=generator).to(A.device)
    v = A.apply(A.mask(start)).flatten()
    diagonal, beside = [], []
    for step in range(count):
        basis[step] = v / torch.linalg.vector_norm(v)
        v = A.apply(basis[step].reshape(A.domain)).flatten()
        diagonal.append(float(basis[step] @ v))
        size = float(torch.linalg.vector_norm(v))
        for _ in range(2):
            v = v - basis[: step + 1].T @ (basis[: step + 1] @ v)
        beside.append(float(torch.linalg.vector_norm(v)))
        if beside[-1] <= 1e-12 * size:
            break
    found = len(diagonal)
    inner = torch.tensor(beside[: found - 1], dtype=torch.float64)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    small = small + torch.diag(inner, 1) + torch.diag(inner, -1)
    values, mixing = torch.linalg.eigh(small)
    return values, (mixing.to(basis).T @ basis[:found]).float()


class RitzVectors:
    r"""Random right-hand sides :math:`\sum_i c_i u_i` of Ritz vectors, with unit norm.

    The coefficients are normal, nine times as large for the lower half of the spectrum and a
    twentieth beyond it. No solution is needed.

    Args:
        A: The matrix to train on.
        count: Number of Ritz vectors.
        seed: Of the start of the Lanczos iteration.

    Reference: Kaneda et al. 2023, section on the training data.
    """

    def __init__(self, A: LinearOperator, count: int, *, seed: int = 0):
        values, vectors = lanczos(A, count, generator=torch.Generator().manual_seed(seed))
        self.vectors = vectors[values > _LEAST]
        self.domain = A.domain
        self._weights = torch.ones(len(self.vectors))
        self._weights[: round((0.5 + _LOW_MARGIN) * len(self.vectors))] = _LOW_WEIGHT

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw right-hand sides.

        Args:
            count: How many.
            generator: Random numbers.

        Returns:
            Shape ``(count, *domain)``, float32.
        """
        mixing = torch.randn(count, len(self.vectors), generator=generator) * self._weights
        r: Tensor = mixing @ self.vectors
        r = r / torch.linalg.vector_norm(r, dim=1, keepdim=True)
        return r.reshape(count, *self.domain)
