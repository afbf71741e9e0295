"""What stands on either side of a pair between links: its numbers, and a ball around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from physim.collision import _witness as witness

Scalar = Any

EDGES = 12
"""Edges of a box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A shape in its link's axes.

    Attributes:
        kind: Kind of the shape.
        rotation: Orientation (3, 3).
        center: Its middle (..., 3).
        size: MuJoCo's size numbers (..., 3).
    """

    kind: str
    rotation: Tensor
    center: Tensor
    size: Tensor


@dataclass(frozen=True, slots=True)
class Primitive:
    """A part of a shape that can touch.

    Attributes:
        width: How many numbers describe it.
        numbers: Reads them off a shape, given which of its parts is meant.
        ball: Centre and radius of a ball around it.
    """

    width: int
    numbers: Callable[[Placed, int], list[Tensor]]
    ball: Callable[[witness.Pose, Sequence[Scalar]], tuple[list[Scalar], Scalar]]


def end_ball(shape: Placed, part: int) -> list[Tensor]:
    """A sphere, or the upper (0) or lower (1) end of a capsule."""
    center = shape.center
    if shape.kind == "capsule":
        reach = shape.rotation[:, 2] * shape.size[..., 1:2]
        center = center - reach if part else center + reach
    return [center, shape.size[..., 0:1]]


def _segment(shape: Placed, part: int) -> list[Tensor]:
    """A capsule, a sphere or an end as one without length, an edge of a box as one without radius.

    Parts of a capsule: 0 is all of it, 1 and 2 are its upper and lower end.
    """
    if shape.kind == "box":
        axis, corner = part // 4, part % 4
        along, *across = (shape.rotation[:, (axis + k) % 3] for k in range(3))
        half = [shape.size[..., (axis + k) % 3, None] for k in range(3)]
        middle = shape.center
        for k, direction in enumerate(across):
            middle = middle + (1.0 if corner >> k & 1 else -1.0) * half[1 + k] * direction
        return [middle + half[0] * along, middle - half[0] * along, torch.zeros_like(half[0])]
    if shape.kind == "sphere" or part:
        center, radius = end_ball(shape, part - 1)
        return [center, center, radius]
    reach = shape.rotation[:, 2] * shape.size[..., 1:2]
    return [shape.center + reach, shape.center - reach, shape.size[..., 0:1]]


def _box(shape: Placed, part: int) -> list[Tensor]:
    del part
    return [shape.center, shape.size, shape.rotation.flatten()]


def _cylinder(shape: Placed, part: int) -> list[Tensor]:
    del part
    return [shape.center, shape.rotation[:, 2], shape.size[..., 0:2]]


_BALL = Primitive(4, end_ball, witness.ball_around_ball)
_SEGMENT = Primitive(7, _segment, witness.ball_around_segment)
_BOX = Primitive(15, _box, witness.ball_around_box)
_CYLINDER = Primitive(8, _cylinder, witness.ball_around_cylinder)

SIDES = {
    "segments": (_SEGMENT, _SEGMENT),
    "crossing": (_SEGMENT, _SEGMENT),
    "ball_box": (_BALL, _BOX),
    "box_ball": (_BOX, _BALL),
    "ball_cylinder": (_BALL, _CYLINDER),
    "cylinder_ball": (_CYLINDER, _BALL),
}
"""Both sides of each kind of pair between links; the world can only be the second."""


def parts_between(kind_a: str, kind_b: str, *, can_lie: bool) -> list[tuple[str, int, int]]:
    """Parts of two shapes that may touch each other: kind of pair, part of each shape.

    A ball meets a solid in one point. A capsule meets a box with one of its ends, or with an edge
    of the box; another capsule where their axes are closest, and with all four ends if one can
    lie on the other, as that closest point then jumps from end to end.
    """
    if kind_b in ("box", "cylinder"):
        ends = range(2 if kind_a == "capsule" else 1)
        found = [(f"ball_{kind_b}", end, 0) for end in ends]
        if kind_a == "capsule":
            found += [("segments", 0, edge) for edge in range(EDGES)]
        return found
    if kind_a in ("box", "cylinder"):
        mirror = {"segments": "segments", f"ball_{kind_a}": f"{kind_a}_ball"}
        return [
            (mirror[kind], a, b) for kind, b, a in parts_between(kind_b, kind_a, can_lie=can_lie)
        ]
    if can_lie and kind_a == kind_b == "capsule":
        with_ends = [("segments", a, b) for a, b in ((1, 0), (2, 0), (0, 1), (0, 2))]
        return [("crossing", 0, 0), *with_ends]
    return [("segments", 0, 0)]
