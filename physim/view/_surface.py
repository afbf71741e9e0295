"""Surfaces of the primitives as small meshes; all of them are convex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surface", "surface_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """A closed convex mesh.

    Attributes:
        vertices: Corners [m], shape ``(V, 3)``.
        faces: Indices of four corners, counter-clockwise seen from outside, shape ``(F, 4)``; a
            triangle repeats a corner.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def surface_of(kind: str, size: NDArray[np.float64], *, segments: int = 16) -> Surface:
    """The surface of a primitive in its own frame; its axis is z.

    Args:
        kind: ``"sphere"``, ``"capsule"``, ``"cylinder"``, ``"ellipsoid"`` or ``"box"``.
        size: As in the model's parameter ``shape_size`` [m], shape ``(3,)``.
        segments: Number of corners around the axis, a multiple of 4.

    Returns:
        The mesh, inscribed in the primitive.

    Raises:
        ValueError: If the kind has no closed surface.
    """
    a, b, c = (float(x) for x in size)
    if kind == "box":
        return _box(a, b, c)
    arc = np.linspace(-0.5 * np.pi, 0.5 * np.pi, segments // 2 + 1)
    half = len(arc) // 2 + 1
    if kind in ("sphere", "ellipsoid"):
        ball = _turned(np.cos(arc), np.sin(arc), segments)
        scale = np.array([a, a, a] if kind == "sphere" else [a, b, c])
        return Surface(vertices=ball.vertices * scale, faces=ball.faces)
    if kind == "capsule":
        lower, upper = arc[:half], arc[-half:]
        side = _side(a, b)
        radius = np.concatenate(
            [a * np.cos(lower[:-1]), np.full_like(side, a), a * np.cos(upper[1:])]
        )
        height = np.concatenate([a * np.sin(lower[:-1]) - b, side, a * np.sin(upper[1:]) + b])
        return _turned(radius, height, segments)
    if kind == "cylinder":
        side = _side(a, b)
        radius = np.concatenate([[0.0], np.full_like(side, a), [0.0]])
        return _turned(radius, np.concatenate([[-b], side, [b]]), segments)
    raise ValueError(f"{kind!r} has no closed surface")


def _side(radius: float, half_length: float) -> NDArray[np.float64]:
    """Heights of the rings of a straight side: faces about as long as the radius.

    The film sorts faces by the depth of their middle, which long faces would deceive.
    """
    rings = min(max(int(np.ceil(2.0 * half_length / radius)), 1), 8)
    return np.linspace(-half_length, half_length, rings + 1)


def _turned(radius: NDArray[np.float64], height: NDArray[np.float64], segments: int) -> Surface:
    """Turn a profile, from the lower to the upper pole, about the z axis."""
    angle = 2.0 * np.pi * np.arange(segments) / segments
    rings = np.stack(
        [
            radius[:, None] * np.cos(angle),
            radius[:, None] * np.sin(angle),
            np.repeat(height[:, None], segments, axis=1),
        ],
        axis=-1,
    )
    ring, step = np.meshgrid(np.arange(len(radius) - 1), np.arange(segments), indexing="ij")
    ahead = (step + 1) % segments
    corners = [
        ring * segments + step,
        ring * segments + ahead,
        (ring + 1) * segments + ahead,
        (ring + 1) * segments + step,
    ]
    faces = np.stack(corners, axis=-1).reshape(-1, 4)
    return Surface(vertices=rings.reshape(-1, 3), faces=faces)


def _box(a: float, b: float, c: float) -> Surface:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    faces = [
        [0, 1, 3, 2],
        [4, 6, 7, 5],
        [0, 4, 5, 1],
        [2, 3, 7, 6],
        [0, 2, 6, 4],
        [1, 5, 7, 3],
    ]
    return Surface(vertices=signs * np.array([a, b, c]), faces=np.array(faces))
