"""Checks of arguments, with errors that say what was got, what was expected and what to try.

Each check takes the argument's name first. They are for the border to the user; inner loops trust
their callers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real

import torch
from torch import Tensor

from solvers.core._errors import NonFiniteError, SettingsError, ShapeError

__all__ = [
    "check_choice",
    "check_count",
    "check_finite",
    "check_positive",
    "check_same_kind",
    "check_shape",
]


def check_shape(
    name: str, tensor: Tensor, pattern: str, *, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Check a tensor's shape against a pattern and learn the sizes of named axes.

    Args:
        name: Name of the argument.
        tensor: The argument.
        pattern: Axes separated by blanks, written as in jaxtyping: a word names an axis, a number
            fixes it, ``_`` takes any size, and a leading ``...`` stands for any number of axes.
        sizes: Axes known from earlier checks; they must agree.

    Returns:
        ``sizes`` with the axes of this tensor added.

    Raises:
        ShapeError: If the number of axes or a size differs.

    Example:
        >>> sizes = check_shape("A", torch.ones(5, 3, 2), "b m n")
        >>> check_shape("b", torch.ones(5, 3), "b m", sizes=sizes)
        {'b': 5, 'm': 3, 'n': 2}
    """
    axes = pattern.split()
    at_least = ""
    known = dict(sizes or {})
    if not isinstance(tensor, Tensor):
        raise ShapeError(
            f"{name}: got {type(tensor).__name__}, expected a tensor of shape ({pattern}); "
            "convert it with torch.as_tensor"
        )
    shape = list(tensor.shape)
    if axes and axes[0] == "...":
        axes = axes[1:]
        at_least = "at least "
        shape = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else shape
    if len(shape) != len(axes):
        raise ShapeError(
            f"{name}: got shape {tuple(tensor.shape)} with {tensor.ndim} axes, expected "
            f"({pattern}) with {at_least}{len(axes)}; add an axis with unsqueeze "
            "or remove one with squeeze"
        )
    for axis, size in zip(axes, shape, strict=True):
        expected = int(axis) if axis.isdigit() else known.get(axis, size)
        if size != expected:
            source = "" if axis.isdigit() else f"; {axis!r} had that size in an earlier place"
            raise ShapeError(
                f"{name}: got shape {tuple(tensor.shape)}, expected ({pattern}) where "
                f"{axis} = {expected}, got {size}{source}"
            )
        if not axis.isdigit() and axis != "_":
            known[axis] = size
    return known


def check_finite(name: str, tensor: Tensor, *, step: int | None = None) -> None:
    """Check that a tensor holds neither NaN nor infinity.

    Args:
        name: Name of the tensor.
        tensor: The tensor, any shape; waits for the device.
        step: Step of the loop, for the message.

    Raises:
        NonFiniteError: With the name, the index of the first bad entry and the step.
    """
    bad = ~torch.isfinite(tensor)
    if not bool(bad.any()):
        return
    index = tuple(int(i) for i in bad.nonzero()[0])
    when = "" if step is None else f" at step {step}"
    where = f" at index {index}" if index else ""
    raise NonFiniteError(
        f"{name}{where}{when} is {tensor[index].item()}, expected finite numbers "
        f"({int(bad.sum())} of {tensor.numel()} entries are bad); look at the inputs of this item, "
        "shorten the step, or find the operation with torch.autograd.set_detect_anomaly(True)",
        name=name,
        index=index,
        step=step,
    )


def check_same_kind(**tensors: Tensor) -> tuple[torch.dtype, torch.device]:
    """Check that tensors share one floating-point type and one device.

    Args:
        **tensors: The arguments by name, at least one.

    Returns:
        The common type and device.

    Raises:
        SettingsError: If a tensor is not floating point, or two differ.
    """
    if not tensors:
        raise SettingsError("check_same_kind: got no tensor, expected at least one by name")
    first, reference = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise SettingsError(
                f"{name}: got type {tensor.dtype}, expected a floating-point type; "
                "convert it with .double() or .float()"
            )
        if (tensor.dtype, tensor.device) != (reference.dtype, reference.device):
            raise SettingsError(
                f"{name}: got {tensor.dtype} on {tensor.device}, expected {reference.dtype} on "
                f"{reference.device} as for {first}; convert it with {name}.to({first})"
            )
    return reference.dtype, reference.device


def check_positive(name: str, value: float | Tensor, *, allow_zero: bool = False) -> None:
    """Check that a number, or every entry of a tensor, is positive; NaN is not.

    Args:
        name: Name of the argument.
        value: A number or a tensor of any shape.
        allow_zero: Accept zero as well.

    Raises:
        SettingsError: With the first entry that is not positive.
    """
    expected = "zero or more" if allow_zero else "more than zero"
    if isinstance(value, Tensor):
        good = value >= 0 if allow_zero else value > 0
        if bool(good.all()):
            return
        index = tuple(int(i) for i in (~good).nonzero()[0])
        where = f" at index {index}" if index else ""
        raise SettingsError(f"{name}: got {value[index].item()}{where}, expected {expected}")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingsError(f"{name}: got {value!r}, expected a number {expected}")
    if math.isnan(value) or value < 0 or (value == 0 and not allow_zero):
        raise SettingsError(f"{name}: got {value}, expected {expected}")


def check_count(name: str, value: int, *, least: int = 1) -> None:
    """Check that a number of things is whole and large enough.

    Args:
        name: Name of the argument.
        value: The number.
        least: The smallest that is allowed.

    Raises:
        SettingsError: If it is not an integer, or too small.

    Example:
        >>> check_count("windows", 5)
    """
    is_whole = hasattr(value, "__index__") and not isinstance(value, bool | Tensor)
    if not is_whole or value < least:
        kind = "" if is_whole else "a whole number, "
        raise SettingsError(f"{name}: got {value!r}, expected {kind}{least} or more")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that a setting is one of a few values.

    Args:
        name: Name of the setting.
        value: What was given.
        choices: What is allowed.

    Raises:
        SettingsError: With the allowed values and the nearest one.
    """
    allowed: Sequence[object] = tuple(choices)
    if value in allowed:
        return
    near = get_close_matches(str(value), [str(choice) for choice in allowed], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"{name}: got {value!r}, expected one of {', '.join(map(repr, allowed))}{hint}"
    )
