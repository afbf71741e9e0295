"""What users hand in, checked: each error names the argument, what was got and what to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from physim.dynamics._assembly import StepData
from physim.model.tree import Tree
from solvers.core import NonFiniteError, NumericalWarning, OnFailure, SettingsError, ShapeError

Parameters = Mapping[str, Tensor]


def _as_tensor(value: Tensor | Sequence[float] | float) -> Tensor:
    """A tensor as it is; Python numbers in double precision."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def check_positive_number(name: str, value: float) -> float:
    """A positive finite number, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{name} is {value!r}, expected a positive number")
    if not (math.isfinite(value) and value > 0):
        raise SettingsError(f"{name} is {value!r}, expected a positive number")
    return float(value)


def check_smoothing(name: str, value: float) -> float:
    """A finite number that is not negative, or an error that names it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and value >= 0):
        raise SettingsError(f"{name} is {value!r}, expected 0 (exact contact) or a positive number")
    return float(value)


def as_rows(name: str, value: Tensor | Sequence[float], width: int) -> Tensor:
    """A float64 tensor of shape (rows, width) from one row or many."""
    if type(value) is Tensor and value.dtype is torch.float64 and value.is_cpu:
        if value.dim() == 2 and value.shape[1] == width:
            return value
    tensor = _as_tensor(value)
    if tensor.device.type != "cpu":
        raise SettingsError(f"{name} is on {tensor.device}, expected the CPU; call .cpu()")
    if tensor.is_complex():
        raise SettingsError(f"{name} is {tensor.dtype}, expected real numbers")
    tensor = tensor.to(torch.float64)
    tensor = tensor[None] if tensor.dim() == 1 else tensor
    if tensor.dim() != 2 or tensor.shape[1] != width:
        shape = tuple(_as_tensor(value).shape)
        raise ShapeError(f"{name} has shape {shape}, expected ({width},) or (batch, {width})")
    return tensor


def batch_rows(name: str, value: Tensor | Sequence[float], width: int, batch: int) -> Tensor:
    """`as_rows`, repeated to ``batch`` rows if there is one."""
    rows = as_rows(name, value, width)
    if rows.shape[0] == batch:
        return rows
    if rows.shape[0] != 1:
        raise ShapeError(f"{name} has {rows.shape[0]} rows, expected 1 or {batch}")
    return rows.expand(batch, -1)


def item_rows(name: str, value: Tensor, width: int, batch: int) -> Tensor:
    """`as_rows` with exactly ``batch`` rows."""
    rows = as_rows(name, value, width)
    if rows.shape[0] != batch:
        raise ShapeError(f"{name} has {rows.shape[0]} rows, expected {batch}, one per item")
    return rows


def item_numbers(name: str, value: Tensor, batch: int) -> Tensor:
    """A float64 tensor of one number per item."""
    if value.shape != (batch,):
        raise ShapeError(f"{name} has shape {tuple(value.shape)}, expected ({batch},)")
    return value.to(torch.float64)


def merge_parameters(own: Parameters, given: Parameters, batch: int) -> dict[str, Tensor]:
    """The simulator's parameters with the given ones in place.

    Raises:
        SettingsError: If a name is unknown or a tensor is of the wrong kind.
        ShapeError: If a shape is neither the parameter's own nor that with a batch in front.
    """
    merged = dict(own)
    for name, value in given.items():
        if name not in own:
            raise SettingsError(f"parameters: unknown name {name!r}, expected one of {sorted(own)}")
        tensor, shape = _as_tensor(value), tuple(own[name].shape)
        if not tensor.is_floating_point() or tensor.device.type != "cpu":
            raise SettingsError(
                f"parameters[{name!r}] is {tensor.dtype} on {tensor.device}, expected a real "
                "tensor on the CPU"
            )
        if tuple(tensor.shape) not in (shape, (batch, *shape), (1, *shape)):
            raise ShapeError(
                f"parameters[{name!r}] has shape {tuple(tensor.shape)}, expected {shape} or "
                f"{(batch, *shape)}"
            )
        merged[name] = tensor.to(torch.float64)
    return merged


def rotation_spans(tree: Tree) -> list[tuple[int, int, int]]:
    """(joint, first quaternion coordinate, first rotational dof) of free and ball joints."""
    return [
        (j.index, j.q + (3 if j.kind == "free" else 0), j.v + (3 if j.kind == "free" else 0))
        for j in tree.joints
        if j.kind in ("free", "ball")
    ]


def normalise_quaternions(tree: Tree, q: Tensor) -> Tensor:
    """Unit quaternions; the derivative projects gradients on the tangent space."""
    pieces, last = [], 0
    for _, start, _ in sorted(rotation_spans(tree), key=lambda span: span[1]):
        quaternion = q[:, start : start + 4]
        pieces += [q[:, last:start], quaternion / quaternion.norm(dim=-1, keepdim=True)]
        last = start + 4
    return torch.cat([*pieces, q[:, last:]], dim=-1) if pieces else q


def check_rotation(tree: Tree, names: Sequence[str], v: Tensor, timestep: float) -> None:
    """Refuse free and ball joints that turn by 90 degrees or more within a step."""
    for joint, _, start in rotation_spans(tree):
        speed = v[:, start : start + 3].detach().norm(dim=-1)
        worst = int(speed.argmax())
        if float(speed[worst]) * timestep >= 2.0:
            raise SettingsError(
                f"v: joint {names[joint]!r} of item {worst} turns at "
                f"{float(speed[worst]):.4g} rad/s, beyond the integrator's domain of "
                f"{2.0 / timestep:.4g} rad/s at a time step of {timestep:g} s; use a smaller "
                "timestep"
            )


def finite_items(data: StepData, on_failure: OnFailure, with_numbers: bool) -> Tensor:
    """Which items of a step's inputs are finite (B,).

    Args:
        data: Inputs of the step.
        on_failure: What to do about an item that is not.
        with_numbers: Whether the numbers may be at fault; the model's own are finite.

    Raises:
        NonFiniteError: If one is not and ``on_failure="raise"``.
    """
    good = torch.ones(data.q.shape[0], dtype=torch.bool)
    names = ["q", "v", "control", "force", *(["timestep", "numbers"] if with_numbers else [])]
    for name in names:
        tensor = getattr(data, name).detach().reshape(len(good), -1)
        bad = ~torch.isfinite(tensor).all(-1)
        if on_failure == "raise" and bool(bad.any()):
            item = int(bad.nonzero()[0])
            shown = "" if name == "numbers" else f": {tensor[item].tolist()}"
            raise NonFiniteError(
                f"{name} of item {item} is not finite{shown}; look at the control, the state "
                'and the parameters that led here, or pass on_failure="mask"'
            )
        good &= ~bad
    return good


def check_controls(controls: Tensor, on_failure: OnFailure) -> None:
    """Refuse controls (T, B, nu) that are not finite, if failures raise."""
    bad = ~torch.isfinite(controls).all(-1)
    if on_failure == "raise" and bool(bad.any()):
        step, item = (int(x) for x in bad.nonzero()[0])
        raise NonFiniteError(
            f"controls of step {step}, item {item} are not finite: "
            f'{controls[step, item].tolist()}; mend them or pass on_failure="mask"'
        )


def report_overlap(
    gaps: Tensor, pairs: Sequence[tuple[str, str]], tolerated: float, policy: str
) -> None:
    """Warn of, or refuse, shapes that overlap at the start.

    Args:
        gaps: Signed distances (B, C) [m].
        pairs: Names of both shapes of every candidate.
        tolerated: Depth that counts as touching [m].
        policy: ``"warn"`` or ``"raise"``.
    """
    lowest, where = gaps.min(dim=-1)
    worst = int(lowest.argmin())
    depth = -float(lowest[worst])
    if depth <= tolerated:
        return
    first, second = pairs[int(where[worst])]
    message = (
        f"item {worst} starts with {first!r} and {second!r} overlapping by {1e3 * depth:.3g} mm; "
        "the overlap is closed at a bounded speed"
    )
    if policy == "raise":
        raise SettingsError(f"{message}; move the start or pass on_penetration='warn'")
    warnings.warn(message, NumericalWarning, stacklevel=4)
