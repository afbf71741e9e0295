"""Nearest points of a box and of a simplex."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from constraints._tensors import check_real
from constraints.closed_forms._closed_form import AbstractClosedForm, Inputs
from constraints.closed_forms._inputs import check_batch, read_values
from constraints.failure import FailurePolicy
from solvers.core import (
    Report,
    SettingsError,
    Solution,
    Status,
    check_choice,
    check_positive,
    is_mapped,
)

__all__ = ["Box", "Simplex"]


class Box(AbstractClosedForm):
    r"""Bring every entry between two bounds; each entry is an item of its own.

    Args:
        smooth: False: the nearest point, whose gradient is zero outside. True: the map
            :math:`l + (u-l)\,\sigma(4 (x - m)/(u-l))` with the middle m, which never reaches the
            bounds, is the identity to first order in the middle and has a gradient everywhere.
        on_failure: What to do where a lower bound is above its upper one, or a number is NaN; see
            :mod:`constraints.failure`. ``"project"`` takes the middle of crossed bounds, to which
            failed entries of ``"warn"`` and ``"mask"`` go as well, without gradient; entries that
            are not finite are zero.

    Raises:
        SettingsError: If the policy is unknown, or smooth is no boolean.

    Backward: to x and to the bounds.

    Example:
        >>> import torch
        >>> Box()(torch.tensor([-2.0, 0.3, 5.0]), 0.0, 1.0)
        tensor([0.0000, 0.3000, 1.0000])
        >>> x = torch.tensor([-2.0, 0.3])
        >>> solution = Box(on_failure="mask").solve(x, torch.tensor([0.0, 1.0]), 0.5)
        >>> solution.value, solution.report.failed_items()
        (tensor([0.0000, 0.7500]), [(1,)])
    """

    def __init__(self, *, smooth: bool = False, on_failure: FailurePolicy = "raise"):
        super().__init__(on_failure, can_project=True)
        check_choice("smooth", smooth, (False, True))
        self.smooth = smooth

    def forward(
        self, x: Float[Tensor, "..."], lower: Tensor | float, upper: Tensor | float
    ) -> Float[Tensor, "..."]:
        """Bring x between the bounds.

        Args:
            x: Values, any shape.
            lower: Lower bounds, one for all or broadcast against x; ``-inf`` for none unless
                smooth.
            upper: Upper bounds, likewise.

        Returns:
            Values within the bounds.

        Raises:
            InfeasibleError: Under ``"raise"``, if a lower bound is above its upper bound.
            NonFiniteError: Under ``"raise"`` and ``"project"``, if x or a bound is NaN, or the
                result infinite.
            ShapeError: If the bounds do not fit x.
            SettingsError: If a bound is infinite and the map smooth, or an argument is not real.
        """
        return self._answer(self._read(x, lower, upper))

    def solve(
        self, x: Float[Tensor, "..."], lower: Tensor | float, upper: Tensor | float
    ) -> Solution[Tensor]:
        """The same with a report: status of each entry, and how far it is outside its bounds.

        Args:
            x: As in `forward`.
            lower: As in `forward`.
            upper: As in `forward`.

        Returns:
            Values and report, both of the shape of the values.

        Raises:
            InfeasibleError: As in `forward`.
            NonFiniteError: As in `forward`.
        """
        inputs = self._read(x, lower, upper)
        return self._settle(inputs, self._nearest(*inputs.values()))

    @property
    def _item_axes(self) -> int:
        return 0

    def _nearest(self, *inputs: Tensor) -> Tensor:
        x, low, high = inputs
        if not self.smooth:
            return torch.minimum(torch.maximum(x, low), high)
        width = high - low
        middle = (low + high) / 2.0
        safe = torch.where(width > 0, width, 1.0)
        inside = low + width * torch.sigmoid(4.0 * (x - middle) / safe)
        # Rounding of the product may pass the bound.
        return torch.minimum(torch.maximum(inside, low), high)

    def _is_sound(self, value: Tensor, *inputs: Tensor) -> bool:
        return super()._is_sound(value, *inputs) and bool((inputs[1] <= inputs[2]).all())

    def _find_lost(self, first: Tensor, *inputs: Tensor) -> Tensor:
        _, low, high = (one.detach() for one in inputs)
        # Bounds that leave infinity only.
        return ~first.detach().isfinite() | (low == torch.inf) | (high == -torch.inf)

    def _clean(self, inputs: Inputs, is_lost: Tensor) -> Inputs:
        common = {name: one.expand(is_lost.shape) for name, one in inputs.items()}
        return {name: torch.where(is_lost, 0.0, one) for name, one in common.items()}

    def _diagnose(self, value: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        _, low, high = inputs
        return (low > high) * int(Status.INFEASIBLE), (low + high) / 2.0

    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        _, low, high = inputs
        return torch.maximum(low - value, value - high).clamp(min=0.0)

    def _explain(self, inputs: Inputs, report: Report) -> str:
        low, high = inputs["lower"], inputs["upper"]
        where = tuple((low > high).nonzero()[0].tolist())
        lows, highs = torch.broadcast_tensors(low, high)
        return (
            f"lower, upper: at index {where} the bounds are {lows[where].item():g} and "
            f"{highs[where].item():g}, expected lower <= upper; swap them, or take "
            'on_failure="project" for their middle'
        )

    def _read(self, x: Tensor, lower: Tensor | float, upper: Tensor | float) -> Inputs:
        check_real("x", x)
        low, high = (
            read_values(name, bound, dtype=x.dtype, device=x.device)
            for name, bound in (("lower", lower), ("upper", upper))
        )
        inputs = {"x": x, "lower": low, "upper": high}
        check_batch({name: one.shape for name, one in inputs.items()}, what="shape")
        if self.smooth and not is_mapped(low, high) and bool((high - low).isinf().any()):
            raise SettingsError(
                "lower, upper: got an infinite bound, or bounds whose distance overflows, expected "
                "finite ones for the smooth map; use smooth=False"
            )
        return inputs


class Simplex(AbstractClosedForm):
    r"""Nearest point with non-negative entries and a given sum, :math:`x \ge 0, \sum_i x_i = r`.

    The solution is :math:`x_i = \max(x_{0,i} - \tau, 0)` with the shift :math:`\tau` found from the
    sorted entries.

    Args:
        total: The sum r, positive.
        norm: ``"sum"``, or ``"l1"`` for the ball :math:`\sum_i |x_i| \le r`.
        on_failure: What to do with points that hold NaN or infinity, see
            :mod:`constraints.failure`; under ``"warn"`` and ``"mask"`` they are zero. Entries of
            minus infinity have no share in the sum, as in a softmax, as long as one is finite.

    Raises:
        SettingsError: If the sum is not a positive number, the norm is unknown, or the policy is
            unknown or ``"project"``.

    Backward: the mean over the support is removed, zero elsewhere; exact where no entry is at its
    bound by chance.

    Cost: a sort of the last axis.

    Reference: Held, Wolfe & Crowder 1974; Duchi et al. 2008 (the ball).

    Example:
        >>> import torch
        >>> Simplex()(torch.tensor([0.9, 0.5, -0.7]))
        tensor([0.7000, 0.3000, 0.0000])
    """

    def __init__(
        self, total: float = 1.0, *, norm: str = "sum", on_failure: FailurePolicy = "raise"
    ):
        super().__init__(on_failure)
        if isinstance(total, Tensor):
            raise SettingsError(
                "total: got a tensor, expected a number; use .item(), or divide x by the totals "
                "and multiply the result with them"
            )
        check_positive("total", total)
        if total == math.inf:
            raise SettingsError("total: got inf, expected a finite number")
        check_choice("norm", norm, ("sum", "l1"))
        self.total = total
        self.norm = norm

    def forward(self, x: Float[Tensor, "*B n"]) -> Float[Tensor, "*B n"]:
        """Move x to the nearest point of the set.

        Args:
            x: Points, the entries along the last axis; the result has their type.

        Returns:
            Nearest points.

        Raises:
            SettingsError: If there is no entry, or x is no real tensor.
            NonFiniteError: Under ``"raise"``, if an entry is NaN or plus infinity, or all are minus
                infinity.
        """
        return self._answer(self._read(x))

    def solve(self, x: Float[Tensor, "*B n"]) -> Solution[Tensor]:
        """The same with a report: status of each point, and how far its sum is from the set.

        Args:
            x: As in `forward`.

        Returns:
            Nearest points and report.

        Raises:
            NonFiniteError: As in `forward`.
        """
        inputs = self._read(x)
        return self._settle(inputs, self._nearest(x))

    @property
    def _item_axes(self) -> int:
        return 1

    def _nearest(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        value = x.double()
        if self.norm == "sum":
            return self._project(value).to(x.dtype)
        inside = value.abs().sum(-1, keepdim=True) <= self.total
        ball = value.sign() * self._project(value.abs())
        return torch.where(inside, value, ball).to(x.dtype)

    def _clean(self, inputs: Inputs, is_lost: Tensor) -> Inputs:
        return {"x": torch.where(is_lost[..., None], 0.0, inputs["x"])}

    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        excess = value.double().abs().sum(-1) - self.total
        return excess.clamp(min=0.0) if self.norm == "l1" else excess.abs()

    def _read(self, x: Tensor) -> Inputs:
        check_real("x", x)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise SettingsError(
                f"x: got shape {tuple(x.shape)}, expected (..., n) with one entry or more"
            )
        return {"x": x}

    def _project(self, x: Tensor) -> Tensor:
        # A number added to all entries changes nothing but rounding.
        x = x - x.detach().amax(-1, keepdim=True)
        with torch.no_grad():
            ordered = x.sort(-1, descending=True).values
            count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
            # Entry k stays if the shift that the first k need leaves it positive.
            stays = ordered * count > ordered.cumsum(-1) - self.total
            size = stays.sum(-1, keepdim=True).clamp(min=1)
            support = x >= ordered.gather(-1, size - 1)
            is_bad = x.isnan().any(-1, keepdim=True)
        kept = support.sum(-1, keepdim=True).clamp(min=1)
        shift = (torch.where(support, x, 0.0).sum(-1, keepdim=True) - self.total) / kept
        nearest = torch.where(support, (x - shift).clamp(min=0.0), 0.0)
        return torch.where(is_bad, torch.nan, nearest)
