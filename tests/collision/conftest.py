"""Witness functions on numbers, called the way the dynamics call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest

from physim.collision import ContactGroup, build_groups
from physim.model import Model, load_model
from physim.model.tree import build_tree


class Pairs:
    """All candidates of a model, evaluated at poses that MuJoCo computes for them."""

    def __init__(self, text: str) -> None:
        self.model: Model = load_model(text)
        self.reference = mujoco.MjModel.from_xml_string(text)
        self.data = mujoco.MjData(self.reference)
        self.tree = build_tree(self.model)
        self.groups: tuple[ContactGroup, ...] = build_groups(self.tree, self.model)
        self.link_bodies = [
            next(b.index for b in self.model.bodies if self.tree.placements[b.index].link == link)
            for link in range(len(self.tree.links))
        ]

    def move(self, q: np.ndarray) -> list[Any]:
        """Set a configuration; poses (rotation, position) of all links."""
        self.data.qpos[:] = q
        mujoco.mj_kinematics(self.reference, self.data)
        mujoco.mj_comPos(self.reference, self.data)
        return [
            (self.data.xmat[k + 1].reshape(3, 3).tolist(), self.data.xpos[k + 1].tolist())
            for k in self.link_bodies
        ]

    def numbers(self, group: ContactGroup) -> list[list[float]]:
        """Numbers of every candidate of a group."""
        from physim.model.tree import body_positions

        p = self.model.parameters()
        places = body_positions(self.tree, self.model, p["body_position"])
        return [row.tolist() for row in group.numbers(self.tree, self.model, places, p)]

    def evaluate(
        self, poses: list[Any]
    ) -> list[tuple[ContactGroup, int, float, np.ndarray, np.ndarray]]:
        """(group, pair, gap, normal, point) of every candidate."""
        world = (np.eye(3).tolist(), [0.0, 0.0, 0.0])
        rows = []
        for group in self.groups:
            for candidate, numbers in zip(group.candidates, self.numbers(group), strict=True):
                a = poses[candidate.link_a]
                b = poses[candidate.link_b] if candidate.link_b >= 0 else world
                gap, normal, point = group.witness(a, b, numbers)
                found = np.array([float(x) for x in normal]), np.array([float(x) for x in point])
                rows.append((group, candidate.pair, float(gap), *found))
        return rows


@pytest.fixture
def pairs() -> Callable[[str], Pairs]:
    """Build all candidates of a model text."""
    return Pairs
