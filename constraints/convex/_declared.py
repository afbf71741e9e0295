"""What cvxpy's parameters were declared to be, asked of each item of a batch.

A program is convex because of such declarations: a negative price of a norm makes another program,
with other solutions or none. An item that breaks one is solved for the nearest value that keeps it,
without gradient, and does not count as converged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["keep_declarations"]


def keep_declarations(
    parameters: Sequence[Any], values: Sequence[Tensor], *, strict: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Replace values that break what their parameter was declared to be.

    Args:
        parameters: Parameters of cvxpy.
        values: Their values, of their shapes or with a batch axis in front.
        strict: Raise instead.

    Returns:
        The values, in which rounding has been undone and broken declarations are kept, and which
        items had broken one: shape ``(B,)``, or ``()`` if all share the value; None if no item.

    Raises:
        SettingsError: Under ``strict``, with parameter, item and declaration.
    """
    kept: list[Tensor] = []
    broken: Tensor | None = None
    for parameter, value in zip(parameters, values, strict=True):
        declared, given = _declaration(parameter), value.detach()
        near = _nearest(declared, given.double()).to(value.dtype) if declared else given
        gap = (given - near).abs()
        if not declared or not bool((gap > 0).any()):
            kept.append(value)
            continue
        axes = len(parameter.shape)
        rounding = torch.finfo(value.dtype).eps ** 0.5 if value.is_floating_point() else 0.0
        is_far = gap > rounding * (1.0 + given.abs())
        own = is_far.reshape(*value.shape[: value.ndim - axes], -1).any(-1)
        if strict and bool(own.any()):
            raise SettingsError(_complain(parameter, declared, given, own))
        inside = value + (near - given)
        kept.append(torch.where(own.reshape(own.shape + (1,) * axes), near, inside))
        broken = own if broken is None else broken | own
    return kept, broken if broken is not None and bool(broken.any()) else None


def _declaration(parameter: Any) -> dict[str, Any]:
    """What was declared that a program may be convex because of."""
    kinds = ("nonneg", "pos", "nonpos", "neg", "bounds", "symmetric", "PSD", "NSD")
    given = {kind: parameter.attributes.get(kind) for kind in kinds}
    return {
        kind: value for kind, value in given.items() if value is not None and value is not False
    }


def _nearest(declared: Mapping[str, Any], value: Tensor) -> Tensor:
    """The nearest allowed numbers; NaN stays."""
    near = value
    if not declared.keys().isdisjoint(("symmetric", "PSD", "NSD")):
        near = (near + near.mT) / 2.0
    if not declared.keys().isdisjoint(("PSD", "NSD")):
        finite = near.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        values, vectors = torch.linalg.eigh(torch.where(finite, near, 0.0))
        values = values.clamp(min=0.0) if "PSD" in declared else values.clamp(max=0.0)
        near = torch.where(finite, (vectors * values[..., None, :]) @ vectors.mT, near)
    if not declared.keys().isdisjoint(("nonneg", "pos")):
        near = near.clamp(min=0.0)
    if not declared.keys().isdisjoint(("nonpos", "neg")):
        near = near.clamp(max=0.0)
    if "bounds" in declared:
        low, high = (torch.as_tensor(bound).to(value) for bound in declared["bounds"])
        near = near.maximum(low).minimum(high)
    return near


def _complain(parameter: Any, declared: Mapping[str, Any], value: Tensor, broken: Tensor) -> str:
    where = ""
    if broken.ndim:
        item = int(broken.nonzero()[0, 0])
        value, where = value[item], f" in item {item}"
    shown = f"{value.item():.3g}" if value.ndim == 0 else f"{value.tolist()}"
    words = ", ".join(f"{kind}={what!r}" for kind, what in declared.items())
    return (
        f"{parameter.name()}: got {shown[:80]}{where}, expected {words} as it was declared; "
        'bring it there, with softplus for example, or take on_failure="mask"'
    )
