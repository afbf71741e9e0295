"""What users hand in, checked: each error names the argument, what was got and what to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from physim.dynamics._assembly import StepData
from physim.dynamics._conversion import as_double, as_tensor
from physim.dynamics._state import State
from physim.model.tree import Tree
from solvers.core import (
    NonFiniteError,
    NumericalWarning,
    OnFailure,
    SettingsError,
    ShapeError,
    is_mapped,
)

Parameters = Mapping[str, Tensor]


def check_positive_number(name: str, value: float) -> float:
    """A positive finite number, or an error that names it."""
    number = _plain_number(name, value, "a positive number")
    if not (math.isfinite(number) and number > 0):
        raise SettingsError(f"{name} is {value!r}, expected a positive number")
    return number


def check_smoothing(name: str, value: float) -> float:
    """A finite number that is not negative, or an error that names it."""
    expected = "0 (exact contact) or a positive number"
    number = _plain_number(name, value, expected)
    if not (math.isfinite(number) and number >= 0):
        raise SettingsError(f"{name} is {value!r}, expected {expected}")
    return number


def _plain_number(name: str, value: object, expected: str) -> float:
    """A number of Python or NumPy as a float."""
    if isinstance(value, Tensor):
        raise SettingsError(
            f"{name} is a tensor, expected {expected} outside of the graph; give its .item(), or, "
            "to differentiate a parameter, hand the tensor to step in parameters={...}"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingsError(f"{name} is {value!r}, expected {expected}")
    return float(value)


def as_rows(name: str, value: Tensor | Sequence[float], width: int) -> Tensor:
    """A float64 tensor of shape (rows, width) from one row or many."""
    if type(value) is Tensor and value.dtype is torch.float64 and value.is_cpu:
        if value.dim() == 2 and value.shape[1] == width:
            return value
    tensor = as_double(name, value)
    rows = tensor[None] if tensor.dim() == 1 else tensor
    if rows.dim() != 2 or rows.shape[1] != width:
        shape = tuple(tensor.shape)
        raise ShapeError(f"{name} has shape {shape}, expected ({width},) or (batch, {width})")
    return rows


def batch_rows(name: str, value: Tensor | Sequence[float], width: int, batch: int) -> Tensor:
    """`as_rows`, repeated to ``batch`` rows if there is one."""
    rows = as_rows(name, value, width)
    if rows.shape[0] == batch:
        return rows
    if rows.shape[0] != 1:
        raise ShapeError(f"{name} has {rows.shape[0]} rows, expected 1 or {batch}")
    return rows.expand(batch, -1)


def as_state(state: State, nq: int, nv: int) -> State:
    """A state whose rows are float64, one of q and one of v for each item."""
    if not isinstance(state, State):
        raise SettingsError(
            f"state is a {type(state).__name__}, expected a physim.State; make one with "
            "initial_state"
        )
    q, v = as_rows("state.q", state.q, nq), as_rows("state.v", state.v, nv)
    if not q.shape[0]:
        raise ShapeError("state has no items, expected one or more; leave out empty selections")
    if q.shape[0] != v.shape[0]:
        raise ShapeError(f"state has {q.shape[0]} rows of q but {v.shape[0]} of v")
    if q is state.q and v is state.v:
        return state
    return State(q=q, v=v, interval=state.interval, impulses=state.impulses)


def as_controls(value: Tensor | Sequence[Sequence[float]], nu: int, batch: int) -> Tensor:
    """Controls of many steps, float64, shape (T, nu) or (T, B or 1, nu)."""
    controls = as_double("controls", value)
    fits = controls.dim() == 3 and controls.shape[1] in (1, batch)
    if (controls.dim() != 2 and not fits) or controls.shape[-1] != nu:
        raise ShapeError(
            f"controls have shape {tuple(controls.shape)}, expected (steps, {nu}) or "
            f"(steps, {batch}, {nu})"
        )
    return controls


def item_rows(name: str, value: Tensor, width: int, batch: int) -> Tensor:
    """`as_rows` with exactly ``batch`` rows."""
    rows = as_rows(name, value, width)
    if rows.shape[0] != batch:
        raise ShapeError(f"{name} has {rows.shape[0]} rows, expected {batch}, one per item")
    return rows


def past_intervals(value: Tensor, batch: int) -> Tensor:
    """Lengths of the past intervals, one per item, float64; NaN is left to `finite_items`."""
    lengths = as_double("state.interval", value)
    if lengths.shape != (batch,):
        raise ShapeError(f"state.interval has shape {tuple(lengths.shape)}, expected ({batch},)")
    shortest = 1.0 if is_mapped(lengths) else lengths.detach().min().item()
    if shortest <= 0.0:
        raise SettingsError(
            f"state.interval holds {shortest:g} s, expected positive durations; None means the "
            "simulator's time step"
        )
    return lengths


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


def check_quaternions(tree: Tree, names: Sequence[str], q: Tensor) -> None:
    """Refuse quaternions of free and ball joints that are zero, which are no rotation."""
    for joint, start, _ in rotation_spans(tree):
        is_zero = (q[:, start : start + 4].detach() == 0).all(-1)
        if bool(is_zero.any()):
            raise SettingsError(
                f"q: the quaternion of joint {names[joint]!r} of item {int(is_zero.nonzero()[0])}, "
                f"entries {start} to {start + 3}, is zero; expected (w, x, y, z), such as "
                "(1, 0, 0, 0) for no rotation"
            )


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


def finite_items(data: StepData, on_failure: OnFailure, parameters: Parameters | None) -> Tensor:
    """Which items of a step's inputs are finite (B,).

    Args:
        data: Inputs of the step.
        on_failure: What to do about an item that is not.
        parameters: Those that were given, which may be at fault; the model's own are finite.

    Raises:
        NonFiniteError: If one is not and ``on_failure="raise"``.
    """
    good = torch.ones(data.q.shape[0], dtype=torch.bool)
    names = ["q", "v", "control", *(["timestep", "numbers"] if parameters else []), "force"]
    for name in names:
        tensor = getattr(data, name).detach().reshape(len(good), -1)
        bad = ~torch.isfinite(tensor).all(-1)
        if on_failure == "raise" and bool(bad.any()):
            item = int(bad.nonzero()[0])
            what = f"{name} of item {item} is not finite: {tensor[item].tolist()}"
            if name in ("timestep", "numbers") and parameters:
                what = describe_bad(parameters, item)
            raise NonFiniteError(
                f"{what}; look at the control, the state and the parameters that led here, or "
                'pass on_failure="mask"'
            )
        good &= ~bad
    return good


def failing_with_bad_numbers(force: Tensor, numbers: Tensor) -> Tensor:
    """The force (B, nv), not finite where an item's numbers (B, n) are not.

    A comparison with NaN decides nothing: a solve could end as if such a number were not there.
    """
    good = torch.isfinite(numbers.detach()).all(-1, keepdim=True)
    if not is_mapped(good) and bool(good.all()):
        return force
    return torch.where(good, force, torch.nan)


def describe_bad(parameters: Parameters, item: int) -> str:
    """The first number of parameters that is not finite, by name, in words.

    Args:
        parameters: Some, of which one is not finite or leads to what is not.
        item: First item that it concerns.
    """
    for name, value in parameters.items():
        tensor = as_tensor(name, value).detach()
        # Ranges of controls and forces may be open.
        is_open = name.startswith(("control_", "force_"))
        bad = torch.isnan(tensor) if is_open else ~torch.isfinite(tensor)
        if bool(bad.any()):
            return f"{show_bad(name, tensor, bad)}, expected finite numbers"
    return f"parameters {sorted(parameters)} of item {item} are too large: what follows overflows"


def show_bad(name: str, value: Tensor, bad: Tensor) -> str:
    """A parameter, its first bad number, and where that stands."""
    index = tuple(bad.nonzero()[0].tolist())
    place = f" at {list(index)}" if index else ""
    return f"parameters[{name!r}] is {float(value[index]):g}{place}"


def check_controls(controls: Tensor, on_failure: OnFailure, first: int = 0) -> None:
    """Refuse controls (T, B, nu) of steps from ``first`` that are not finite, if failures raise."""
    bad = ~torch.isfinite(controls).all(-1)
    if on_failure == "raise" and bool(bad.any()):
        step, item = (int(x) for x in bad.nonzero()[0])
        raise NonFiniteError(
            f"controls of step {first + step}, item {item} are not finite: "
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
    lowest, where = gaps.detach().min(dim=-1)
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
