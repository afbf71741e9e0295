"""What a conjugate gradient iteration leaves: its steps, and directions made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Directions", "Trail"]

_LARGEST = 32767


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    r"""Directions :math:`u_i` of earlier solves, to be added to a preconditioner.

    :math:`B + \sum_i w_i\, u_i u_i^\top` with positive weights is symmetric positive definite with
    ``B``, whatever the directions are.

    Attributes:
        vectors: Directions as whole numbers of 16 bits, shape ``(m, cells)``, in the layout of the
            preconditioner; half the memory traffic of single precision.
        shares: :math:`1 - \lambda_i`, what the preconditioner lacks.
        layout: What the memory of the vectors means; others may not use them.
    """

    vectors: Tensor
    shares: np.ndarray[Any, Any]
    layout: tuple[object, ...]

    def weights(self, energies: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        r"""Weights :math:`w_i = (1 - \lambda_i) / \langle u_i, A u_i \rangle` for an operator.

        Args:
            energies: :math:`\langle u_i, A u_i \rangle`; where it is not positive the weight is 0.
        """
        is_positive = np.isfinite(energies) & (energies > 0)
        return np.where(is_positive, self.shares / np.where(is_positive, energies, 1.0), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trail:
    r"""The first steps of a preconditioned conjugate gradient iteration.

    Attributes:
        vectors: Preconditioned residuals :math:`z_k`, shape ``(steps, cells)``; none if only the
            coefficients were kept.
        lengths: Step lengths :math:`\alpha_k`.
        overlaps: :math:`\beta_k`, of step k with the one before, 0 at a restart.
        sizes: :math:`\langle z_k, r_k \rangle`.
        layout: What the memory of the vectors means.
    """

    vectors: Tensor
    lengths: np.ndarray[Any, Any]
    overlaps: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    layout: tuple[object, ...]

    def ritz_values(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        r"""Ritz values of the preconditioned matrix, in increasing order, and their mixtures.

        The coefficients of the iteration are the entries of its Lanczos matrix, so nothing is
        applied anew.

        Reference: Saad 2003, "Iterative methods for sparse linear systems", section 6.7.3.
        """
        import scipy.linalg

        alpha, beta = self.lengths, self.overlaps
        diagonal = 1.0 / alpha
        diagonal[1:] += beta[1:] / alpha[:-1]
        beside = -np.sqrt(beta[1:]) / alpha[:-1]
        values, mixing = scipy.linalg.eigh_tridiagonal(diagonal, beside)
        return values, mixing / np.sqrt(self.sizes)[:, None]

    def ritz_errors(self) -> np.ndarray[Any, Any]:
        r"""How far Ritz values may be from eigenvalues, relative to them, in increasing order.

        :math:`\eta\, |s_i| / \lambda_i` with the last entry :math:`s_i` of an eigenvector of the
        Lanczos matrix; its last entry beside the diagonal stands for the next one, :math:`\eta`.

        Reference: Saad 2011, "Numerical methods for large eigenvalue problems", section 6.6.
        """
        values, mixing = self.ritz_values()
        last = np.abs(mixing[-1]) * np.sqrt(self.sizes[-1])
        beside = np.sqrt(self.overlaps[-1]) / self.lengths[-2]
        errors: np.ndarray[Any, Any] = beside * last / np.maximum(values, 1e-300)
        return errors

    def directions(self, count: int) -> Directions:
        r"""The lowest Ritz vectors :math:`u`.

        With :math:`B A u = \lambda u` the sum takes :math:`A u` to :math:`u`: a slow direction
        becomes an eigenvector with eigenvalue one.

        Args:
            count: Number of directions.

        Reference: Gratton, Sartenaer & Tshimanga 2011, "On a class of limited memory
        preconditioners for large scale linear systems" (the spectral one).
        """
        values, mixing = self.ritz_values()
        low = torch.from_numpy(mixing[:, :count].T.copy()).to(self.vectors.dtype)
        vectors = low @ self.vectors
        unit = vectors.abs().amax(1).clamp(min=1e-30) / _LARGEST
        return Directions(
            vectors=vectors.div_(unit[:, None]).round_().to(torch.int16),
            shares=np.maximum(1.0 - values[:count], 0.0),
            layout=self.layout,
        )
