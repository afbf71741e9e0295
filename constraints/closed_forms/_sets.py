"""Nearest points of a box and of a simplex."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constraints.closed_forms._inputs import check_real
from solvers.core import InfeasibleError, SettingsError, check_choice, check_positive

__all__ = ["Box", "Simplex"]


class Box(nn.Module):
    r"""Bring every entry between two bounds.

    Args:
        smooth: False: the nearest point, whose gradient is zero outside. True: the map
            :math:`l + (u-l)\,\sigma(4 (x - m)/(u-l))` with the middle m, which never reaches the
            bounds, is the identity to first order in the middle and has a gradient everywhere.

    Backward: to x and to the bounds.

    Example:
        >>> import torch
        >>> Box()(torch.tensor([-2.0, 0.3, 5.0]), 0.0, 1.0)
        tensor([0.0000, 0.3000, 1.0000])
    """

    def __init__(self, *, smooth: bool = False):
        super().__init__()
        self.smooth = smooth

    def forward(
        self, x: Float[Tensor, "..."], lower: Tensor | float, upper: Tensor | float
    ) -> Float[Tensor, "..."]:
        """Bring x between the bounds.

        Args:
            x: Values, any shape.
            lower: Lower bounds, broadcast against x; ``-inf`` for none unless smooth.
            upper: Upper bounds, likewise.

        Returns:
            Values within the bounds.

        Raises:
            InfeasibleError: If a lower bound is above its upper bound, or a bound is NaN.
            SettingsError: If a bound is infinite and the map smooth, or x is no real tensor.
        """
        check_real("x", x)
        low = torch.as_tensor(lower, dtype=x.dtype, device=x.device)
        high = torch.as_tensor(upper, dtype=x.dtype, device=x.device)
        if not bool((low <= high).all()):
            bad = (~(low <= high)).nonzero()[0].tolist()
            raise InfeasibleError(
                f"lower, upper: at index {tuple(bad)} the lower bound is not at or below the "
                "upper one, expected lower <= upper; swap them or look for NaN"
            )
        if not self.smooth:
            return torch.minimum(torch.maximum(x, low), high)
        width = high - low
        if not bool(width.isfinite().all()):
            raise SettingsError(
                "lower, upper: got an infinite bound, expected finite ones for the smooth map; "
                "use smooth=False"
            )
        middle = (low + high) / 2.0
        safe = torch.where(width > 0, width, 1.0)
        inside = low + width * torch.sigmoid(4.0 * (x - middle) / safe)
        # Rounding of the product may pass the bound.
        return torch.minimum(torch.maximum(inside, low), high)


class Simplex(nn.Module):
    r"""Nearest point with non-negative entries and a given sum, :math:`x \ge 0, \sum_i x_i = r`.

    The solution is :math:`x_i = \max(x_{0,i} - \tau, 0)` with the shift :math:`\tau` found from the
    sorted entries.

    Args:
        total: The sum r, positive.
        norm: ``"sum"``, or ``"l1"`` for the ball :math:`\sum_i |x_i| \le r`.

    Backward: the mean over the support is removed, zero elsewhere; exact where no entry is at its
    bound by chance.

    Cost: a sort of the last axis.

    Reference: Held, Wolfe & Crowder 1974; Duchi et al. 2008 (the ball).

    Example:
        >>> import torch
        >>> Simplex()(torch.tensor([0.9, 0.5, -0.7]))
        tensor([0.7000, 0.3000, 0.0000])
    """

    def __init__(self, total: float = 1.0, *, norm: str = "sum"):
        super().__init__()
        check_positive("total", total)
        check_choice("norm", norm, ("sum", "l1"))
        self.total = total
        self.norm = norm

    def forward(self, x: Float[Tensor, "*B n"]) -> Float[Tensor, "*B n"]:
        """Move x to the nearest point of the set.

        Args:
            x: Points, the entries along the last axis; the result has their type.

        Returns:
            Nearest points; NaN where an entry is NaN or plus infinity.

        Raises:
            SettingsError: If there is no entry, or x is no real tensor.
        """
        check_real("x", x)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise SettingsError(
                f"x: got shape {tuple(x.shape)}, expected (..., n) with one entry or more"
            )
        value = x.double()
        if self.norm == "sum":
            return self._project(value).to(x.dtype)
        inside = value.abs().sum(-1, keepdim=True) <= self.total
        ball = value.sign() * self._project(value.abs())
        return torch.where(inside, value, ball).to(x.dtype)

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
