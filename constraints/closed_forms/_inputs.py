"""What a closed form takes: real tensors, since whole numbers would round the law away."""

from __future__ import annotations

from torch import Tensor

from solvers.core import SettingsError

__all__ = ["check_real"]


def check_real(name: str, value: object) -> None:
    """Check that an argument is a tensor of floating-point numbers.

    Args:
        name: Name of the argument.
        value: The argument.

    Raises:
        SettingsError: If it is something else.
    """
    if not isinstance(value, Tensor):
        raise SettingsError(
            f"{name}: got {type(value).__name__}, expected a tensor; convert it with "
            "torch.as_tensor"
        )
    if not value.is_floating_point():
        raise SettingsError(
            f"{name}: got type {value.dtype}, expected floating point, in which the result is "
            "given back; use .double() or .float()"
        )
