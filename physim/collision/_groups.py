"""Contact candidates: which pairs of links may touch, grouped by the kind of their distance.

Shapes become simple primitives: a capsule on a plane is two balls, a box eight, a cylinder two
rims (with four fixed points each, so that it can stand). Balls that can never touch first are
dropped (see `_hidden`). Pairs that the model's filters exclude never get here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from physim.collision import _witness as witness
from physim.collision._hidden import pruned
from physim.collision._sides import SIDES, Placed, end_ball, parts_between
from physim.model.tree import body_positions, quaternion_to_matrix, rotate, snap
from solvers.core import SettingsError

if TYPE_CHECKING:
    from physim.model import Model, Pair, Shape
    from physim.model.tree import Tree

Scalar = Any
Places = Sequence[Tensor]
Parameters = Mapping[str, Tensor]

WITNESS: dict[str, Callable[..., witness.Witness]] = {
    "ball": witness.plane_ball,
    "ellipsoid": witness.plane_ellipsoid,
    "rim": witness.plane_rim,
    "segments": witness.segment_segment,
    "crossing": witness.crossing_capsules,
    "ball_box": witness.ball_box,
    "box_ball": witness.box_ball,
    "ball_cylinder": witness.ball_cylinder,
    "cylinder_ball": witness.cylinder_ball,
}
WIDTH = {"ball": 8, "ellipsoid": 19, "rim": 11} | {
    kind: a.width + b.width for kind, (a, b) in SIDES.items()
}
MINIMUM_FRICTION = 1e-9
"""Friction coefficients are kept above this, so that the friction cone has an interior."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible contact.

    Attributes:
        link_a: Link on one side.
        link_b: Link on the other; -1 is the world.
        pair: The model's pair.
        shapes: The model's shapes on either side.
        parts: Which part of either shape is meant, where it has several.
    """

    link_a: int
    link_b: int
    pair: int
    shapes: tuple[int, int]
    parts: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactGroup:
    """Candidates of one kind; those on planes share the plane's normal.

    Attributes:
        name: Name of the group's slots among the numbers.
        kind: Which distance function they have.
        candidates: Members.
        normal: Normal of their plane, a constant of the structure; None between links.
    """

    name: str
    kind: str
    candidates: tuple[Candidate, ...]
    normal: tuple[float, float, float] | None = None

    @property
    def count(self) -> int:
        """Number of candidates."""
        return len(self.candidates)

    @property
    def width(self) -> int:
        """Numbers per candidate: the witness's and the friction coefficient."""
        return WIDTH[self.kind] + 1

    @property
    def is_between_links(self) -> bool:
        """True if both sides may move."""
        return self.kind in SIDES

    def witness(self, a: Any, b: Any, numbers: Sequence[Scalar]) -> witness.Witness:
        """Gap, normal and point of one candidate (see `physim.collision._witness`)."""
        return WITNESS[self.kind](a, b, numbers)

    @property
    def side_width(self) -> int:
        """Numbers of side a of a candidate between links; those of side b follow them."""
        return SIDES[self.kind][0].width

    def ball(self, side: int, pose: Any, numbers: Sequence[Scalar]) -> tuple[list[Scalar], Scalar]:
        """Centre and radius of a ball around one side of a candidate between links.

        Args:
            side: 0 for side a, 1 for side b.
            pose: Of that side's link.
            numbers: From that side's first on.
        """
        return SIDES[self.kind][side].ball(pose, numbers)

    def numbers(self, tree: Tree, model: Model, places: Places, p: Parameters) -> list[Tensor]:
        """Columns of the flat vector, one tensor (..., width) per candidate."""
        columns = []
        for candidate in self.candidates:
            pair = model.pairs[candidate.pair]
            geometry = _NUMBERS[self.kind](tree, model, places, p, pair, candidate)
            friction = pair_friction(model, candidate.pair, p).clamp(min=MINIMUM_FRICTION)
            parts = [*geometry, friction[..., None]]
            batch = torch.broadcast_shapes(*[part.shape[:-1] for part in parts])
            columns.append(torch.cat([x.expand(*batch, x.shape[-1]) for x in parts], dim=-1))
        return columns


def pair_friction(model: Model, pair: int, p: Parameters) -> Tensor:
    """Sliding coefficient of a pair: its own if declared, else the rougher shape's."""
    record = model.pairs[pair]
    if record.has_own_friction:
        return p["pair_friction"][..., pair]
    return torch.maximum(p["friction"][..., record.shape_a], p["friction"][..., record.shape_b])


def _constant(matrix: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(matrix, dtype=like.dtype, device=like.device)


def shape_frame(
    tree: Tree, model: Model, places: Places, p: Parameters, shape: Shape
) -> tuple[Tensor, Tensor]:
    """Orientation (3, 3) and centre (..., 3) of a shape in its link's axes."""
    local = quaternion_to_matrix(shape.quaternion)
    position = p["shape_position"][..., shape.index, :]
    if shape.body < 0:
        return _constant(snap(local), position), position
    rotation = np.array(tree.placements[shape.body].rotation)
    center = places[shape.body] + rotate(rotation.tolist(), position)
    return _constant(snap(rotation @ local), position), center


def _placed(tree: Tree, model: Model, places: Places, p: Parameters, index: int) -> Placed:
    shape = model.shapes[index]
    rotation, center = shape_frame(tree, model, places, p, shape)
    size = p["shape_size"][..., index, :]
    return Placed(kind=shape.kind, rotation=rotation, center=center, size=size)


def _plane(
    tree: Tree, model: Model, places: Places, p: Parameters, pair: Pair
) -> tuple[Tensor, Tensor]:
    rotation, center = shape_frame(tree, model, places, p, model.shapes[pair.shape_a])
    normal = rotation[:, 2]
    return normal, (center * normal).sum(-1, keepdim=True)


def _ball_numbers(
    tree: Tree, model: Model, places: Places, p: Parameters, pair: Pair, item: Candidate
) -> list[Tensor]:
    shape = model.shapes[pair.shape_b]
    normal, offset = _plane(tree, model, places, p, pair)
    placed = _placed(tree, model, places, p, shape.index)
    rotation, center, size = placed.rotation, placed.center, placed.size
    radius = size[..., 0:1]
    if shape.kind in ("sphere", "capsule"):
        center, radius = end_ball(placed, item.parts[0])
    elif shape.kind == "box":
        corner = _constant([1.0 if item.parts[0] >> k & 1 else -1.0 for k in range(3)], size)
        center, radius = center + (size * corner) @ rotation.T, torch.zeros_like(radius)
    elif shape.kind == "cylinder":
        quarter, end = item.parts[0] % 4, 1.0 if item.parts[0] < 4 else -1.0
        around = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[quarter]
        local = torch.cat([around[0] * radius, around[1] * radius, end * size[..., 1:2]], dim=-1)
        center, radius = center + local @ rotation.T, torch.zeros_like(radius)
    return [normal, offset, center, radius]


def _ellipsoid_numbers(
    tree: Tree, model: Model, places: Places, p: Parameters, pair: Pair, item: Candidate
) -> list[Tensor]:
    del item
    shape = model.shapes[pair.shape_b]
    normal, offset = _plane(tree, model, places, p, pair)
    rotation, center = shape_frame(tree, model, places, p, shape)
    return [normal, offset, center, p["shape_size"][..., shape.index, :], rotation.flatten()]


def _rim_numbers(
    tree: Tree, model: Model, places: Places, p: Parameters, pair: Pair, item: Candidate
) -> list[Tensor]:
    shape = model.shapes[pair.shape_b]
    normal, offset = _plane(tree, model, places, p, pair)
    rotation, center = shape_frame(tree, model, places, p, shape)
    size = p["shape_size"][..., shape.index, :]
    sign = 1.0 if item.parts[0] == 0 else -1.0
    return [
        normal,
        offset,
        center + sign * size[..., 1:2] * rotation[:, 2],
        rotation[:, 2],
        size[..., 0:1],
    ]


def _between_numbers(
    tree: Tree, model: Model, places: Places, p: Parameters, pair: Pair, item: Candidate, kind: str
) -> list[Tensor]:
    del pair
    columns: list[Tensor] = []
    for side, index, part in zip(SIDES[kind], item.shapes, item.parts, strict=True):
        columns += side.numbers(_placed(tree, model, places, p, index), part)
    return columns


_NUMBERS: dict[str, Callable[..., list[Tensor]]] = {
    "ball": _ball_numbers,
    "ellipsoid": _ellipsoid_numbers,
    "rim": _rim_numbers,
    **{kind: partial(_between_numbers, kind=kind) for kind in SIDES},
}


def _parts_on_plane(kind: str) -> list[tuple[str, int]]:
    """Primitives of a shape that meet a plane: kind, part."""
    if kind == "sphere":
        return [("ball", 0)]
    if kind == "capsule":
        return [("ball", 0), ("ball", 1)]
    if kind == "box":
        return [("ball", corner) for corner in range(8)]
    if kind == "cylinder":
        return [("rim", 0), ("rim", 1), *[("ball", place) for place in range(8)]]
    return [("ellipsoid", 0)]


def _candidates(
    tree: Tree, model: Model, index: int, links: tuple[int, int]
) -> list[tuple[str, Candidate]]:
    """All candidates of a pair, with their kinds; ``links`` carry its shapes."""
    pair = model.pairs[index]
    shapes = (pair.shape_a, pair.shape_b)
    kinds = (model.shapes[shapes[0]].kind, model.shapes[shapes[1]].kind)
    if kinds[0] == "plane":
        return [
            (kind, Candidate(links[1], -1, index, shapes[::-1], (part, 0)))
            for kind, part in _parts_on_plane(kinds[1])
        ]
    # The world stands on side b, and of two moving shapes the rounder one on side a.
    is_turned = links[0] < 0 or (links[1] >= 0 and kinds[0] in ("box", "cylinder"))
    if is_turned:
        links, shapes, kinds = links[::-1], shapes[::-1], kinds[::-1]
    # Limbs of one body meet at joints: there one point does, at a fifth of the cost.
    can_lie = tree.root(links[0]) != tree.root(links[1])
    return [
        (kind, Candidate(*links, index, shapes, (part_a, part_b)))
        for kind, part_a, part_b in parts_between(*kinds, can_lie=can_lie)
    ]


def build_groups(
    tree: Tree, model: Model, *, shapes: Sequence[str] | None = None, prune: bool = True
) -> tuple[ContactGroup, ...]:
    """List the contact candidates of a model.

    Args:
        tree: Topology of ``model``.
        model: The model.
        shapes: Names of the shapes that may touch something; all if None.
        prune: Drop candidates that others of the same link hide.

    Returns:
        Groups of candidates, kinds in a fixed order.
    """
    if isinstance(shapes, str) or not (shapes is None or isinstance(shapes, Iterable)):
        raise SettingsError(
            f"contact_shapes is {shapes!r}, expected names of shapes, such as {[str(shapes)]!r}"
        )
    allowed = None if shapes is None else {model.shape(name).index for name in shapes}
    members: dict[tuple[str, tuple[float, float, float] | None], list[Candidate]] = {}
    p = model.parameters()
    places = body_positions(tree, model, p["body_position"])
    for index, pair in enumerate(model.pairs):
        moving = [s for s in (pair.shape_a, pair.shape_b) if model.shapes[s].kind != "plane"]
        if allowed is not None and not all(s in allowed for s in moving):
            continue
        link_a, link_b = (
            tree.placements[model.shapes[s].body].link if model.shapes[s].body >= 0 else -1
            for s in (pair.shape_a, pair.shape_b)
        )
        for kind, candidate in _candidates(tree, model, index, (link_a, link_b)):
            if candidate.link_a >= 0:
                normal = None
                if kind not in SIDES:
                    x, y, z = _plane(tree, model, places, p, pair)[0].tolist()
                    normal = (x, y, z)
                members.setdefault((kind, normal), []).append(candidate)
    groups = []
    for kind in WITNESS:
        chosen = [key for key in members if key[0] == kind]
        for place, key in enumerate(chosen):
            name = kind if place == 0 else f"{kind}_{place}"
            groups.append(
                ContactGroup(name=name, kind=kind, candidates=tuple(members[key]), normal=key[1])
            )
    return tuple(pruned(tree, model, group) if prune else group for group in groups)
