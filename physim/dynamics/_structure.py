"""What the model's zeros fix for all links alike, such as the plane in which a model moves.

Contacts are traced once per kind and looped over candidates, so they see no link in particular.
What all links share is known all the same: in a model of planar joints every rotation leaves an
axis alone and every twist has three components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from physim.collision import ContactGroup, tangents
from physim.dynamics._kinematics import forward_kinematics
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._numbers import Numbers
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape, constant_value

Scalar = Any
Pose = tuple[list[list[Scalar]], list[Scalar]]

_WORLD = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


@dataclass(frozen=True, slots=True)
class Structure:
    """What is constant for all links and candidates.

    Attributes:
        zeros: Slots of the flat numbers that are zero.
        pose: Rotation by rows, then position, of every link and of the world; None where it varies.
        moves: Components of a twist (angular, then linear) that some link can have.
    """

    zeros: frozenset[int]
    pose: tuple[float | None, ...]
    moves: tuple[int, ...]

    @classmethod
    def of(cls, mechanism: Mechanism, zeros: frozenset[int]) -> Structure:
        """Structure of a mechanism, from kinematics traced once."""
        tape, tree = Tape(), mechanism.tree
        size = mechanism.layout.size
        values = [0 if i in zeros else tape.input("num", i) for i in range(size)]
        numbers = Numbers(mechanism.layout, values)
        poses = forward_kinematics(tree, tape.inputs("q", tree.nq), numbers)
        rows: list[list[float | None]] = [list(_WORLD)]
        for rotation, position in zip(poses.rotation, poses.position, strict=True):
            flat = [x for row in rotation for x in row] + list(position)
            rows.append([constant_value(x) for x in flat])
        pose = tuple(
            column[0] if all(x == column[0] for x in column) else None
            for column in zip(*rows, strict=True)
        )
        moves = {
            i
            for angular, linear in poses.motion
            for i, x in enumerate([*angular, *linear])
            if constant_value(x) != 0.0
        }
        return cls(zeros, pose, tuple(sorted(moves)))

    @classmethod
    def unknown(cls) -> Structure:
        """Nothing is constant: for derivatives by the numbers."""
        return cls(frozenset(), (None,) * 12, tuple(range(6)))

    def pose_values(self, tape: Tape, name: str) -> list[Scalar]:
        """Rotation by rows, then position of a link, from an array of twelve."""
        return [
            tape.input(name, i) if known is None else known for i, known in enumerate(self.pose)
        ]

    def read_pose(self, tape: Tape, name: str) -> Pose:
        """A link's pose from an array of twelve."""
        values = self.pose_values(tape, name)
        return [values[0:3], values[3:6], values[6:9]], values[9:]

    def read_twist(self, tape: Tape, name: str) -> list[Scalar]:
        """A link's twist from an array of six."""
        return [tape.input(name, i) if i in self.moves else 0 for i in range(6)]

    def moving(self, row: Sequence[Scalar]) -> list[Scalar]:
        """A row that acts on twists, without what meets no component of them."""
        return [x if i in self.moves else 0 for i, x in enumerate(row)]

    def read_numbers(self, tape: Tape, group: ContactGroup, first: int) -> list[Scalar]:
        """A candidate's numbers, known where they are the same for all of its kind."""
        values: list[Scalar] = []
        for place in range(group.width):
            slots = {first + group.width * i + place for i in range(group.count)}
            values.append(0 if slots <= self.zeros else tape.input("k", place))
        if group.normal is not None:
            values[:3] = constant_frame(group.normal)[2]
        return values


def is_still(row: Sequence[Scalar]) -> bool:
    """Whether no motion changes the velocity that this row gives."""
    return all(sc.is_zero(x) for x in row)


def constant_frame(normal: Sequence[float]) -> list[list[Scalar]]:
    """Tangents and normal of a plane as numbers."""
    first, second = tangents([float(x) for x in normal])
    return [
        [int(x) if x in (0.0, 1.0, -1.0) else float(x) for x in row]
        for row in (first, second, normal)
    ]
