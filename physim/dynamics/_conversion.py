"""Numbers of any kind as tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.core import SettingsError


def as_tensor(name: str, value: object) -> Tensor:
    """A tensor as it is; other numbers in double precision.

    Raises:
        SettingsError: If these are no numbers.
    """
    if isinstance(value, Tensor):
        return value
    try:
        return torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{name} is a {type(value).__name__}, expected a tensor or numbers ({error})"
        ) from error


def as_double(name: str, value: object) -> Tensor:
    """Real numbers on the CPU as a float64 tensor.

    Raises:
        SettingsError: If they are something else.
    """
    tensor = as_tensor(name, value)
    if tensor.device.type != "cpu":
        raise SettingsError(f"{name} is on {tensor.device}, expected the CPU; call .cpu()")
    if tensor.is_complex():
        raise SettingsError(f"{name} is {tensor.dtype}, expected real numbers")
    return tensor.to(torch.float64)
