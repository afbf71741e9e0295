"""Whether a ray meets a solid: which contacts a touch sensor feels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def meets(solid: str, size: Sequence[float], point: Tensor, direction: Tensor) -> Tensor:
    """Whether the ray from ``point`` along ``direction`` meets a solid or starts inside it.

    Args:
        solid: ``"sphere"``, ``"capsule"``, ``"ellipsoid"``, ``"cylinder"`` or ``"box"``.
        size: As of a `Mount`.
        point: Start of the ray in the solid's frame [m], shape ``(..., 3)``.
        direction: Its direction, any length, shape ``(..., 3)``.

    Returns:
        Booleans of shape ``(...)``.
    """
    if solid == "capsule":
        ends = [point - point.new_tensor([0.0, 0.0, side * size[1]]) for side in (-1.0, 1.0)]
        balls = [meets("sphere", size, end, direction) for end in ends]
        return balls[0] | balls[1] | meets("cylinder", size, point, direction)
    if solid in ("sphere", "ellipsoid"):
        axes = point.new_tensor([size[0]] * 3 if solid == "sphere" else list(size))
        enter, leave = _ball_span(point / axes, direction / axes)
    elif solid == "cylinder":
        enter, leave = _ball_span(point[..., :2] / size[0], direction[..., :2] / size[0])
        slab = _slab_span(point[..., 2], direction[..., 2], size[1])
        enter, leave = torch.maximum(enter, slab[0]), torch.minimum(leave, slab[1])
    else:
        begin, end = _slab_span(point, direction, point.new_tensor(list(size)))
        enter, leave = begin.amax(-1), end.amin(-1)
    return leave >= enter.clamp(min=0.0)


def _ball_span(point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Between which multiples of its direction a line is inside the unit ball; else an empty span.

    The ball has as many dimensions as the vectors.
    """
    a = (direction * direction).sum(-1).clamp(min=1e-300)
    b = (point * direction).sum(-1)
    room = b * b - a * ((point * point).sum(-1) - 1.0)
    root = room.clamp(min=0.0).sqrt()
    misses = room < 0
    enter = ((-b - root) / a).masked_fill(misses, torch.inf)
    return enter, ((root - b) / a).masked_fill(misses, -torch.inf)


def _slab_span(point: Tensor, direction: Tensor, half: Tensor | float) -> tuple[Tensor, Tensor]:
    """The same of the slab ``|x| <= half`` in every coordinate."""
    safe = torch.where(direction.abs() < 1e-300, torch.full_like(direction, 1e-300), direction)
    one, other = (-half - point) / safe, (half - point) / safe
    return torch.minimum(one, other), torch.maximum(one, other)
