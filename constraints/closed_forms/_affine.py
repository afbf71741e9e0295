r"""Nearest point of an affine set: one factorisation, then two products.

.. math:: \min \tfrac12|x - x_0|^2 \text{ with } Ax = b
          \quad\Rightarrow\quad x = x_0 - A^+ (A x_0 - b)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from constraints._tensors import check_real
from constraints.closed_forms._closed_form import AbstractClosedForm, Inputs
from constraints.closed_forms._inputs import check_batch, check_device, check_fixed, read_values
from constraints.failure import FailurePolicy
from solvers.core import (
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    check_finite,
    check_positive,
    check_shape,
    is_mapped,
)

__all__ = ["AffineEquality"]

_CONSISTENT = 1e-9


class AffineEquality(AbstractClosedForm):
    r"""Project onto :math:`\{x : Ax = b\}`, with A fixed at construction or given per call.

    A fixed A is factored once and costs two products per call. Its rows are orthogonalised by
    a singular value decomposition, which leaves a violation at rounding and allows dependent rows;
    they must agree with b.

    Args:
        A: Rows ``(p, n)``, fixed; None to give them with every call.
        rtol: Singular values below this part of the largest count as zero.
        on_failure: What to do where no x satisfies dependent rows, or numbers are not finite; see
            :mod:`constraints.failure`. ``"project"``, with A fixed, takes the least squares of
            ``A x - b`` with rows of length one; failed items of ``"warn"`` and ``"mask"`` go there
            as well, without gradient. Items that are not finite are zero.

    Raises:
        ShapeError: If A has not two axes.
        SettingsError: If A is not float or requires gradients, rtol is not between 0 and 1, or the
            policy is unknown.

    Backward: :math:`\bar x_0 = (I - A^+A)\bar x` and :math:`\bar b = A^{+\top}\bar x`, exact; with
    A given per call also its gradient, through the normal equations. Any order.

    Cost: ``2 p n`` multiplications per item and pass with A fixed; a factorisation of ``p^2 n`` per
    item with A per call, which then must have full row rank.

    Example:
        >>> import torch
        >>> conserve = AffineEquality(torch.ones(1, 3, dtype=torch.float64))
        >>> x = conserve(torch.tensor([[1.0, 2.0, 6.0]]).double(), torch.tensor([[6.0]]).double())
        >>> x.round(decimals=12).abs().tolist()
        [[0.0, 1.0, 5.0]]
    """

    A: Tensor | None
    _basis: Tensor
    _inverse: Tensor

    def __init__(
        self,
        A: Float[Tensor, "p n"] | None = None,
        *,
        rtol: float = 1e-10,
        on_failure: FailurePolicy = "raise",
    ):
        super().__init__(on_failure, can_project=A is not None)
        check_positive("rtol", rtol)
        if rtol >= 1:
            raise SettingsError(f"rtol: got {rtol}, expected less than 1; 1e-10 is usual")
        self.rtol = rtol
        if A is None:
            self.register_buffer("A", None)
            return
        check_shape("A", A, "p n")
        check_real("A", A)
        check_fixed("A", A)
        self.register_buffer("A", A.double())
        for name in ("_basis", "_inverse"):
            self.register_buffer(name, None, persistent=False)
        self._factor()

    def forward(
        self,
        x: Float[Tensor, "*B n"],
        b: Float[Tensor, "*B p"],
        A: Float[Tensor, "*B p n"] | None = None,
    ) -> Float[Tensor, "*B n"]:
        """Move x to the nearest point with ``A x = b``.

        Args:
            x: Points ``(..., n)``; the result has their type.
            b: Right-hand sides ``(p,)`` or ``(..., p)``.
            A: Rows of each item, if none were fixed.

        Returns:
            Nearest points.

        Raises:
            ShapeError: If sizes do not fit.
            SettingsError: If A is given twice or not at all, or an argument is not real.
            InfeasibleError: Under ``"raise"``, if dependent rows contradict each other, or rows
                given per call depend on each other.
            NonFiniteError: Under ``"raise"`` and ``"project"``, if an item holds NaN or infinity.
        """
        return self._answer(self._read(x, b, A))

    def solve(
        self,
        x: Float[Tensor, "*B n"],
        b: Float[Tensor, "*B p"],
        A: Float[Tensor, "*B p n"] | None = None,
    ) -> Solution[Tensor]:
        """The same with a report: status of each item, and its largest ``|A x - b| / (1 + |b|)``.

        Args:
            x: As in `forward`.
            b: As in `forward`.
            A: As in `forward`.

        Returns:
            Nearest points and report. Dependent rows that contradict each other are ``INFEASIBLE``;
            rows given per call that depend without contradiction are ``BREAKDOWN``.

        Raises:
            InfeasibleError: As in `forward`.
            NonFiniteError: As in `forward`.
        """
        inputs = self._read(x, b, A)
        return self._settle(inputs, self._nearest(*inputs.values()))

    @property
    def _item_axes(self) -> int:
        return 1

    def _nearest(self, *inputs: Tensor) -> Tensor:
        if self.A is None:
            return self._per_item(*inputs)
        x, right = inputs
        point = x.to(torch.float64)
        law = self._basis, self._inverse
        if point.ndim == right.ndim == 2 and len(point) == len(right) and not _is_transformed():
            return _Projection.apply(point, right, *law).to(x.dtype)  # type: ignore
        # x0 - V'(V x0 - c) with c = V x*: orthonormal rows leave no error to correct.
        gap = point @ self._basis.mT - right @ self._inverse.mT
        return (point - gap @ self._basis).to(x.dtype)

    def _per_item(self, x: Tensor, b: Tensor, A: Tensor) -> Tensor:
        """Nearest points; NaN where rows depend on each other."""
        rows, right, point = A.double(), b, x.double()
        length = _lengths(rows.detach())
        rows, right = rows / length, right / length[..., 0]
        factor, failed = torch.linalg.cholesky_ex(rows @ rows.mT)
        pivots = factor.detach().diagonal(dim1=-2, dim2=-1)
        dependent = ((failed != 0) | ~(pivots >= self.rtol**0.5).all(-1))[..., None]
        has_dependent = is_mapped(dependent) or bool(dependent.any())
        if has_dependent:
            # Rows of zeros move nothing, and give no gradient.
            rows = torch.where(dependent[..., None], 0.0, rows)
            one = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
            factor = torch.linalg.cholesky_ex(rows @ rows.mT + dependent[..., None] * one).L
        for _ in range(2):
            gap = _times(rows, point) - right
            point = point - _times(rows.mT, torch.cholesky_solve(gap[..., None], factor)[..., 0])
        return (torch.where(dependent, torch.nan, point) if has_dependent else point).to(x.dtype)

    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        right, A = inputs[1], inputs[2].double() if self.A is None else self.A
        return _largest(_times(A, value.double()) - right, right)

    def _is_sound(self, value: Tensor, *inputs: Tensor) -> bool:
        if not super()._is_sound(value, *inputs):
            return False
        # Rows per call that depend on each other have given NaN.
        is_independent = self.A is None or self._inverse.shape[0] == self.A.shape[0]
        return is_independent or not bool(self._contradicts(*inputs).any())

    def _find_lost(self, first: Tensor, *inputs: Tensor) -> Tensor:
        if self.A is not None:
            return super()._find_lost(first, *inputs)
        x, b, A = (~one.detach().isfinite() for one in inputs)
        return x.any(-1) | b.any(-1) | A.any(-1).any(-1)

    def _contradicts(self, *inputs: Tensor) -> Tensor:
        """Whether no point satisfies the rows of an item."""
        x, right = inputs[0].detach(), inputs[1].detach()
        if self.A is None:
            rows = inputs[2].detach().double()
            reached = _times(rows, _least(rows, x.double(), right))
        elif self._inverse.shape[0] == self.A.shape[0]:
            return x.new_zeros((), dtype=torch.bool)
        else:
            reached = _times(self.A, right @ self._inverse.mT @ self._basis)
        return _largest(reached - right, right) > _CONSISTENT

    def _diagnose(self, value: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        contradicts = self._contradicts(*inputs).expand(value.shape[:-1])
        if self.A is not None:
            return contradicts * int(Status.INFEASIBLE), value
        x, right, rows = (one.detach().double() for one in inputs)
        kind = torch.where(contradicts, int(Status.INFEASIBLE), int(Status.BREAKDOWN))
        # Inputs are finite here, so that NaN means dependent rows.
        status = torch.where(value.detach().isnan().any(-1), kind, int(Status.CONVERGED))
        return status, _least(rows, x, right).to(value.dtype)

    def _explain(self, inputs: Inputs, report: Report) -> str:
        item = report.failed_items()[0]
        if self.A is None:
            return (
                f"A: the rows of item {item} depend on each other, expected full row rank where A "
                "is given per call; drop the dependent rows or fix A at construction"
            )
        return (
            f"b: no x satisfies dependent rows of A with this right-hand side, first in item "
            f"{item} where A x misses b by {float(report.residual[item]):.2g} of its size; make "
            'equal rows have equal right-hand sides, drop one, or take on_failure="project"'
        )

    def _read(self, x: Tensor, b: Tensor, A: Tensor | None) -> Inputs:
        if (self.A is None) == (A is None):
            raise SettingsError(
                f"A: got {'none' if A is None else 'two'}, expected one, at construction or in "
                "the call"
            )
        check_real("x", x)
        inputs = {"x": x, "b": read_values("b", b, dtype=torch.float64, device=x.device)}
        if A is not None:
            check_real("A", A)
            check_shape("A", A, "... p n")
            inputs["A"] = A
        rows = self.A if A is None else A
        assert rows is not None
        p, n = rows.shape[-2:]
        right = inputs["b"]
        for name, one, size in (("x", x, n), ("b", right, p)):
            if not one.ndim or one.shape[-1] != size:
                raise ShapeError(
                    f"{name}: got shape {tuple(one.shape)}, expected (..., {size}) for A of "
                    f"shape {tuple(rows.shape)}"
                )
        check_device("A", rows, "x", x)
        if A is not None or x.shape[:-1] != right.shape[:-1]:
            axes = {"x": 1, "b": 1, "A": 2}
            check_batch({name: one.shape[: one.ndim - axes[name]] for name, one in inputs.items()})
        return inputs

    def _factor(self) -> None:
        A = self.A
        assert A is not None
        check_finite("A", A)
        # Rows of length one, so that the rank does not depend on their units.
        length = _lengths(A)
        unit = A / length
        left, values, right = torch.linalg.svd(unit, full_matrices=False)
        largest = values[:1].sum()
        keep = values > self.rtol * torch.where(largest > 0, largest, 1.0)
        self._basis = right[keep]
        scaled = left[:, keep] / values[keep]
        self._inverse = (scaled / length).mT

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if self.A is not None:
            self._factor()


class _Projection(torch.autograd.Function):
    """``x0 + V'(W b - V x0)`` of a batch, with one array of its size in each pass."""

    @staticmethod
    def forward(ctx: Any, point: Tensor, right: Tensor, basis: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(basis, inverse)
        gap = (right @ inverse.mT).addmm_(point, basis.mT, alpha=-1)
        return torch.addmm(point, gap, basis)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        basis, inverse = ctx.saved_tensors
        to_point, to_right, _, _ = ctx.needs_input_grad
        along = cotangent @ basis.mT
        return (
            torch.addmm(cotangent, along, basis, alpha=-1) if to_point else None,
            along @ inverse if to_right else None,
            None,
            None,
        )


def _is_transformed() -> bool:
    """Whether a transform of functions or forward differentiation is under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _lengths(rows: Tensor) -> Tensor:
    """Lengths to divide rows by; one for a row of zeros."""
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, length, 1.0)


def _least(rows: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """The nearest of the points that violate dependent rows of length one least."""
    length = _lengths(rows)
    rows, right = rows / length, right / length[..., 0]
    return x - _times(torch.linalg.pinv(rows), _times(rows, x) - right)


def _largest(gap: Tensor, right: Tensor) -> Tensor:
    """Largest violation of an item, of the size of its right-hand side; zero without rows."""
    relative = gap.abs() / (1.0 + right.abs())
    return relative.amax(-1) if relative.shape[-1] else relative.sum(-1)
