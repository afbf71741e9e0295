"""Balls on a plane that can never touch first, found once when a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from physim.model.tree import body_positions, rotate

if TYPE_CHECKING:
    from physim.collision._groups import ContactGroup, Parameters, Places
    from physim.model import Model
    from physim.model.tree import Tree

TOLERANCE = 1e-12


def pruned(tree: Tree, model: Model, group: ContactGroup) -> ContactGroup:
    """Drop balls that lie in the convex hull of two others of the same link and friction.

    A ball centred on the hinge of its link moves with the parent link as well, so a ball of the
    parent may hide it: capsules that meet at a joint would otherwise touch twice at one point.
    """
    if group.kind != "ball":
        return group
    p = {name: value.detach() for name, value in model.parameters().items()}
    places = body_positions(tree, model, p["body_position"])
    rows = np.array([row.numpy(force=True) for row in group.numbers(tree, model, places, p)])
    alive = [True] * len(rows)
    links = [candidate.link_a for candidate in group.candidates]
    for i, row in enumerate(rows):
        frames = [(links[i], row[4:7])]
        above = _in_parent(tree, model, places, p, links[i], row[4:7])
        if above is not None:
            frames.append(above)
        for link, center in frames:
            peers = [
                rows[j]
                for j in range(len(rows))
                if j != i
                and alive[j]
                and links[j] == link
                and (rows[j][:4] == row[:4]).all()
                and rows[j][8] == row[8]
            ]
            if _is_hidden(center, row[7], peers):
                alive[i] = False
    kept = tuple(c for c, keep in zip(group.candidates, alive, strict=True) if keep)
    return replace(group, candidates=kept)


def _is_hidden(center: np.ndarray, radius: float, peers: list[np.ndarray]) -> bool:
    for a in peers:
        for b in peers:
            along = b[4:7] - a[4:7]
            square = float(along @ along)
            share = float((center - a[4:7]) @ along) / square if square else 0.0
            share = min(max(share, 0.0), 1.0)
            miss = center - a[4:7] - share * along
            room = (1 - share) * a[7] + share * b[7] - radius
            if float(miss @ miss) ** 0.5 <= room + TOLERANCE:
                return True
    return False


def _in_parent(
    tree: Tree, model: Model, places: Places, p: Parameters, link: int, center: np.ndarray
) -> tuple[int, np.ndarray] | None:
    """A point on the axis of a link's only hinge, in the axes of the parent link."""
    joints, parent = tree.links[link].joints, tree.links[link].parent
    if parent < 0 or len(joints) != 1 or joints[0].kind != "hinge":
        return None
    arm = center - p["joint_anchor"][joints[0].index].numpy()
    if float(np.linalg.norm(np.cross(arm, joints[0].axis))) > TOLERANCE:
        return None
    body = model.bodies[tree.links[link].body]
    turn = tree.placements[body.parent].rotation
    origin = (places[body.parent] + rotate(turn, p["body_position"][body.index])).numpy()
    return parent, origin + np.array(tree.links[link].rotation) @ center
