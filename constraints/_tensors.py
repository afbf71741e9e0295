"""Tensors at the border of a layer: what kinds it takes, and the precision of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["check_plain", "check_real", "keep_precision"]


def check_real(name: str, value: object, *, allow_whole: bool = False) -> None:
    """Check that an argument is a tensor of floating-point numbers.

    Args:
        name: Name of the argument.
        value: The argument.
        allow_whole: Take whole numbers too, where the result has the type of another argument.

    Raises:
        SettingsError: If it is something else.
    """
    if not isinstance(value, Tensor):
        raise SettingsError(
            f"{name}: got {type(value).__name__}, expected a tensor; convert it with "
            "torch.as_tensor"
        )
    if allow_whole and not value.is_complex():
        return
    if not value.is_floating_point():
        raise SettingsError(
            f"{name}: got type {value.dtype}, expected floating point, in which the result is "
            "given back; use .double() or .float()"
        )


def check_plain(name: str, value: Tensor) -> None:
    """Check that a tensor is not inside of a `torch.func` transform, which solves do not support.

    Args:
        name: Name of the argument.
        value: The argument.

    Raises:
        SettingsError: If it is.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        raise SettingsError(
            f"{name}: got a tensor inside of a torch.func transform, expected a plain one, since "
            "values steer the solve; give a batch instead of vmap, and take derivatives with "
            "backward() or torch.autograd.functional"
        )


def keep_precision(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Let what moves the tensors of a module change their device, and not their type.

    Args:
        function: What `torch.nn.Module` applies to its tensors.

    Returns:
        What to apply instead.
    """

    def moved(tensor: Tensor) -> Tensor:
        after = function(tensor)
        return after if after.dtype == tensor.dtype else tensor.to(after.device)

    return moved
