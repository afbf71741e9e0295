"""Algebraic multigrid through PyAMG, for matrices without a grid."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, check_choice, require_extra
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner

__all__ = ["AlgebraicMultigrid"]

_DENSE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgebraicMultigrid:
    """One algebraic multigrid cycle; needs the extra ``amg``.

    Args:
        method: ``"ruge-stuben"`` (classical) or ``"smoothed-aggregation"``.

    Raises:
        SettingsError: If the method is none of these.

    Cost: the set-up costs as much as tens of products; runs on the CPU, one item after the other.
    Reference: Ruge & Stueben 1987; Vanek, Mandel & Brezina 1996; Bell, Olson & Schroder 2022,
    "PyAMG: algebraic multigrid solvers in Python".
    """

    method: Literal["ruge-stuben", "smoothed-aggregation"] = "ruge-stuben"

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("ruge-stuben", "smoothed-aggregation"))

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Build the levels.

        Args:
            operator: Symmetric positive definite operator, one system.

        Raises:
            MissingExtraError: If PyAMG is not installed.
            SettingsError: If an entry of the diagonal is not positive.
        """
        return _PreparedAlgebraic(operator, self.method)


class _PreparedAlgebraic(PreparedPreconditioner):
    def __init__(self, operator: LinearOperator, method: str):
        pyamg = require_extra("pyamg", "amg")
        import scipy.sparse

        operator.check()
        matrix = operator.to_scipy()
        self._kept = np.flatnonzero(np.diff(matrix.indptr))
        inner = scipy.sparse.csr_matrix(matrix[self._kept][:, self._kept], dtype=np.float64)
        build: Any = (
            pyamg.ruge_stuben_solver
            if method == "ruge-stuben"
            else pyamg.smoothed_aggregation_solver
        )
        diagonal = inner.diagonal()
        if not (diagonal > 0).all():
            row = self._kept[np.argmin(diagonal)]
            raise SettingsError(
                f"AlgebraicMultigrid: {operator!r} has {diagonal.min():.3g} on the diagonal of row "
                f"{row}, expected more than zero; use SparseLU, MINRES or GMRES"
            )
        levels = build(inner)
        if levels.levels[-1].A.shape[0] > _DENSE:
            # Coarsening came to a stop; the dense inverse would take for ever.
            levels.coarse_solver = pyamg.multilevel.coarse_grid_solver("splu")
        self._cycle = levels.aspreconditioner()
        self._size = operator.size
        self.label = f"algebraic multigrid ({method})"

    def update(self, operator: LinearOperator) -> PreparedPreconditioner | None:
        """Keep the levels, which wear out, as long as the unknowns are the same."""
        unknowns = np.flatnonzero(operator.diagonal().cpu().numpy())
        if not np.array_equal(unknowns, self._kept):
            return None
        worn = copy(self)
        worn.is_worn = True
        return worn

    def apply(self, r: Tensor) -> Tensor:
        rows = r.reshape(-1, self._size).cpu().double().numpy()
        result = np.zeros_like(rows)
        # What is not finite ends the item; it need not be said twice.
        with np.errstate(all="ignore"):
            for item, row in zip(result, rows, strict=True):
                item[self._kept] = self._cycle.matvec(row[self._kept])
        return torch.from_numpy(result).to(r).reshape(r.shape)
