"""What a closed form takes beside its tensors, and how arguments fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_positive

__all__ = ["check_batch", "check_device", "check_fixed", "read_settings", "read_values"]


def check_device(name: str, value: Tensor, other: str, reference: Tensor) -> None:
    """Check that two tensors are on one device.

    Args:
        name: Name of the argument.
        value: The argument.
        other: Name of another argument.
        reference: The other argument.

    Raises:
        SettingsError: If they are not.
    """
    if value.device != reference.device:
        raise SettingsError(
            f"{name}: got a tensor on {value.device}, expected {reference.device} as for {other}; "
            f"move the layer or {other} with .to(...)"
        )


def check_fixed(name: str, value: object) -> None:
    """Check that what a layer keeps does not want gradients, which it would lose.

    Args:
        name: Name of the argument.
        value: The argument.

    Raises:
        SettingsError: If it does.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        raise SettingsError(
            f"{name}: got a tensor that requires gradients, expected fixed numbers at "
            "construction; use .detach(), or what the call takes"
        )


def read_settings(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Read positive numbers of a layer, one for each axis or coordinate.

    Args:
        name: Name of the setting.
        values: The numbers.

    Returns:
        Their tuple.

    Raises:
        SettingsError: If they are no sequence, or one is not positive.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise SettingsError(
            f"{name}: got {values!r}, expected a sequence of numbers, as (0.1, 0.1)"
        )
    plain = tuple(one.item() if isinstance(one, Tensor) else one for one in values)
    for one in plain:
        check_positive(name, one)
    return tuple(float(one) for one in plain)


def read_values(name: str, value: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Turn a bound, a right-hand side or a boundary value into a tensor.

    Args:
        name: Name of the argument.
        value: A real tensor of any type, a number, or nested lists of numbers.
        dtype: Type of the result.
        device: Its device.

    Returns:
        The values.

    Raises:
        SettingsError: If they are complex, or no numbers at all.
    """
    if isinstance(value, Tensor) and value.dtype == dtype and value.device == device:
        return value
    if isinstance(value, list | tuple) and any(
        isinstance(one, Tensor) and one.requires_grad for one in value
    ):
        raise SettingsError(
            f"{name}: got a list of tensors that require gradients, which it would lose, expected "
            "one tensor; use torch.stack"
        )
    try:
        is_complex = torch.as_tensor(value).is_complex()
        if not is_complex:
            return torch.as_tensor(value, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{name}: got {value!r}, expected a real number or a tensor of them ({error})"
        ) from error
    raise SettingsError(f"{name}: got complex numbers, expected real ones; take .real or .abs()")


def check_batch(shapes: Mapping[str, Sequence[int]], *, what: str = "batch shape") -> torch.Size:
    """Check that arguments have one batch, where one of them may serve all items.

    Args:
        shapes: Shape of the batch of each argument.
        what: What is compared, for the message.

    Returns:
        The common shape, which is that of one of the arguments. Shapes ``(B,)`` and ``(B, 1)`` are
        an oversight more often than they ask for ``(B, B)``, so they are refused.

    Raises:
        ShapeError: If they do not fit together.
    """
    different = {tuple(shape) for shape in shapes.values() if len(shape)}
    if len(different) <= 1:
        return torch.Size(different.pop() if different else ())
    got = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    first = next(iter(shapes))
    try:
        common: torch.Size = torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        raise ShapeError(
            f"{' and '.join(shapes)}: got {what}s {got}, expected the same or one for all; "
            "leave out the axes of what all items share"
        ) from error
    if all(tuple(common) != tuple(shape) for shape in shapes.values()):
        raise ShapeError(
            f"{' and '.join(shapes)}: got {what}s {got}, which together make "
            f"{tuple(common)}, expected that of {first} or of another argument; remove an axis "
            "with squeeze, or ask for every pair with expand"
        )
    return common
