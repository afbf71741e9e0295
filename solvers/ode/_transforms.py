"""Where a search for steps would lose what a transform of torch adds to numbers."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import forward_ad

from solvers.core import SettingsError, is_mapped

__all__ = ["refuse_transforms"]


def refuse_transforms(name: str, x: Tensor) -> None:
    """Refuse the batches of ``vmap`` and the tangents of forward mode.

    Args:
        name: The argument that they are in or come from.
        x: Numbers of it.

    Raises:
        SettingsError: If the numbers carry either.
    """
    if is_mapped(x):
        raise SettingsError(
            f"{name}: got a tensor inside vmap, where steps cannot depend on values; give the "
            "batch to integrate, whose items take steps of their own"
        )
    if forward_ad.unpack_dual(x).tangent is not None:
        raise SettingsError(
            f"{name}: got a tensor with a tangent of forward mode, which steps do not carry; take "
            "reverse mode: backward, torch.func.grad, torch.func.vjp or torch.func.jacrev"
        )
