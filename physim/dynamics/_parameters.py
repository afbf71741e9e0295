"""Numbers that users hand in instead of the model's, checked by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._conversion import as_tensor
from physim.dynamics._inputs import Parameters, show_bad
from physim.dynamics._numbers import symmetric_matrix
from solvers.core import SettingsError, ShapeError, is_mapped

if TYPE_CHECKING:
    from physim.model import Model

_NEVER_NEGATIVE = frozenset("friction pair_friction shape_size".split())
"""Damping, armature and dry friction are not: derivatives by differences at zero ask for less."""
_SLACK = 1e-3


def merge_parameters(
    own: Parameters, given: Parameters, batch: int, model: Model
) -> dict[str, Tensor]:
    """The simulator's parameters with the given ones in place.

    Numbers that are not finite pass: what becomes of such an item, `on_failure` says.

    Args:
        own: All of the simulator.
        given: Some, by name.
        batch: Number of items.
        model: The model, whose joints and actuators have bounds.

    Raises:
        SettingsError: If a name is unknown, a tensor is of the wrong kind, a time step is not
            positive, bounds are crossed, or a number is negative that no mechanism has so.
        ShapeError: If a shape is neither the parameter's own nor that with a batch in front.
    """
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"parameters is a {type(given).__name__}, expected a dict of tensors by name"
        )
    merged = dict(own)
    for name, value in given.items():
        if name not in own:
            raise SettingsError(f"parameters: unknown name {name!r}, expected one of {sorted(own)}")
        tensor, shape = as_tensor(f"parameters[{name!r}]", value), tuple(own[name].shape)
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
        if not is_mapped(tensor):
            _check_range(name, merged[name].detach())
    _check_bounds(merged, given, model)
    return merged


def _check_range(name: str, value: Tensor) -> None:
    """Refuse numbers that no mechanism has; NaN is left to `finite_items`."""
    if name == "timestep" and bool((value <= 0).any()):
        raise SettingsError(f"{show_bad(name, value, value <= 0)}, expected a positive number")
    if name == "mass" and bool((value < 0).any()):
        raise SettingsError(
            f"{show_bad(name, value, value < 0)}, expected zero or more; while it is learned, let "
            "it be the exponential or the square of a free number"
        )
    if name in _NEVER_NEGATIVE and bool((value < -_SLACK).any()):
        raise SettingsError(
            f"{show_bad(name, value, value < -_SLACK)}, expected zero or more; while it is "
            "learned, let it be the exponential or the square of a free number"
        )
    if name == "inertia" and bool(torch.isfinite(value).all()):
        principal = torch.linalg.eigvalsh(symmetric_matrix(value))
        bad = principal[..., 0] < -1e-12 * principal[..., 2].clamp(min=1.0)
        if bool(bad.any()):
            index = tuple(bad.nonzero()[0].tolist())
            raise SettingsError(
                f"parameters['inertia'] has the principal moment {float(principal[index][0]):g} at "
                f"{list(index)}, expected a positive definite matrix (xx, yy, zz, xy, xz, yz)"
            )


def _check_bounds(merged: Mapping[str, Tensor], given: Parameters, model: Model) -> None:
    """Refuse bounds that leave nothing between them."""
    owners: dict[str, Iterable[tuple[str, int]]] = {
        "limit": ((joint.name, joint.index) for joint in model.joints if joint.is_limited),
        "control": ((a.name, a.index) for a in model.actuators if a.is_control_limited),
        "force": ((a.name, a.index) for a in model.actuators if a.is_force_limited),
    }
    for word, named in owners.items():
        ends = [f"{word}_lower", f"{word}_upper"]
        if given.keys().isdisjoint(ends) or any(is_mapped(merged[end]) for end in ends):
            continue
        lower, upper = (merged[end].detach() for end in ends)
        for name, index in named:
            crossed = (lower[..., index] > upper[..., index]).reshape(-1)
            if bool(crossed.any()):
                low, high = torch.broadcast_tensors(lower[..., index], upper[..., index])
                item = int(crossed.nonzero()[0])
                raise SettingsError(
                    f"parameters: {ends[0]} of {name!r} is {float(low.reshape(-1)[item]):g}, above "
                    f"its {ends[1]} of {float(high.reshape(-1)[item]):g}; expected lower < upper"
                )
