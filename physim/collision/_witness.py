r"""Signed distance, normal and contact point of pairs of shapes.

Each function takes the poses of two links ``(rotation, position)`` and the numbers of one
candidate, all generic scalars, and returns the gap [m] (negative means overlap), the unit normal
that points from b to a, and the point through which the normal line passes. A gap's derivative
with respect to the poses is the normal at that point (envelope theorem), which is what the
contact rows use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

Scalar = Any
Vector = list[Scalar]
Pose = tuple[list[Vector], Vector]
Witness = tuple[Scalar, Vector, Vector]

RIM_ROUNDING = 1e-6
"""Radius, relative to the rim's, of the rounding that keeps an upright cylinder smooth."""

_TIE = 1e-12
"""Distance [m] by which axes are taken to lie above one another, so that meeting ones can part."""


def world_point(pose: Pose, local: Sequence[Scalar]) -> Vector:
    """A point given in link axes, in the world."""
    rotation, position = pose
    return la.vadd(position, la.matvec(rotation, local))


def plane_ball(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Ball of link a on a fixed plane: numbers are normal (3), offset, centre (3), radius."""
    del b
    normal, offset = list(numbers[0:3]), numbers[3]
    center, radius = world_point(a, numbers[4:7]), numbers[7]
    height = sc.subtract(la.dot(normal, center), offset)
    return (
        sc.subtract(height, radius),
        normal,
        la.vsub(center, la.vscale(normal, radius)),
    )


def plane_ellipsoid(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Ellipsoid on a fixed plane: normal (3), offset, centre (3), half axes (3), axes (9).

    The lowest point is ``c - R D^2 R^T n / |D R^T n|`` (support function of an ellipsoid).
    """
    del b
    normal, offset = list(numbers[0:3]), numbers[3]
    center, half_axes = world_point(a, numbers[4:7]), numbers[7:10]
    axes = [list(numbers[10 + 3 * i : 13 + 3 * i]) for i in range(3)]
    turn = la.matmul(a[0], axes)
    squared = [sc.multiply(h, h) for h in half_axes]
    along = la.matvec(la.transpose(turn), normal)
    stretched = [sc.multiply(s, x) for s, x in zip(squared, along, strict=True)]
    reach = sc.sqrt(la.dot(stretched, along))
    lowest = la.vsub(center, la.vscale(la.matvec(turn, stretched), sc.reciprocal(reach)))
    gap = sc.subtract(sc.subtract(la.dot(normal, center), offset), reach)
    return gap, normal, lowest


def plane_rim(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Circle of link a on a fixed plane: normal (3), offset, centre (3), axis (3), radius.

    The lowest point of the circle; rounded by `RIM_ROUNDING` where the axis stands on the plane
    and every point of the circle is lowest.
    """
    del b
    normal, offset = list(numbers[0:3]), numbers[3]
    center, radius = world_point(a, numbers[4:7]), numbers[10]
    axis = la.matvec(a[0], numbers[7:10])
    across = la.vsub(normal, la.vscale(axis, la.dot(normal, axis)))
    length = sc.sqrt(sc.add(la.dot(across, across), RIM_ROUNDING**2))
    lowest = la.vsub(center, la.vscale(across, sc.divide(radius, length)))
    height = sc.subtract(la.dot(normal, center), offset)
    return sc.subtract(height, sc.multiply(radius, length)), normal, lowest


def segment_segment(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Capsules (spheres are capsules without length): ends (3 + 3) and radius of a, then of b.

    Closest points of two segments (Ericson 2005, section 5.1.9), with the division guarded for
    parallel axes. The contact point is the middle of the gap. Axes that meet are parted upwards.
    """
    start_a, end_a = world_point(a, numbers[0:3]), world_point(a, numbers[3:6])
    start_b, end_b = world_point(b, numbers[7:10]), world_point(b, numbers[10:13])
    radius_a, radius_b = numbers[6], numbers[13]
    along_a, along_b = la.vsub(end_a, start_a), la.vsub(end_b, start_b)
    between = la.vsub(start_a, start_b)
    aa, bb = la.dot(along_a, along_a), la.dot(along_b, along_b)
    ab = la.dot(along_a, along_b)
    a_off, b_off = la.dot(along_a, between), la.dot(along_b, between)
    product = sc.multiply(aa, bb)
    area = sc.subtract(product, sc.multiply(ab, ab))
    guarded = sc.add(sc.maximum(area, sc.multiply(1e-12, product)), 1e-200)
    s = _unit(sc.divide(sc.subtract(sc.multiply(ab, b_off), sc.multiply(a_off, bb)), guarded))
    t = _unit(sc.divide(sc.add(sc.multiply(ab, s), b_off), sc.add(bb, 1e-200)))
    s = _unit(sc.divide(sc.subtract(sc.multiply(ab, t), a_off), sc.add(aa, 1e-200)))
    near_a = la.vadd(start_a, la.vscale(along_a, s))
    near_b = la.vadd(start_b, la.vscale(along_b, t))
    apart = la.vadd(la.vsub(near_a, near_b), [0, 0, _TIE])
    distance = sc.sqrt(sc.add(la.dot(apart, apart), _TIE**4))
    normal = la.vscale(apart, sc.reciprocal(distance))
    gap = sc.subtract(distance, sc.add(radius_a, radius_b))
    middle = sc.add(radius_b, sc.multiply(0.5, gap))
    return gap, normal, la.vadd(near_b, la.vscale(normal, middle))


def capsule_ball(pose: Pose, numbers: Sequence[Scalar]) -> tuple[Vector, Scalar]:
    """Centre and radius of the ball around a capsule: ends (3 + 3) and radius of the capsule."""
    start, end, radius = numbers[0:3], numbers[3:6], numbers[6]
    middle = la.vscale(la.vadd(start, end), 0.5)
    half = la.vscale(la.vsub(start, end), 0.5)
    return world_point(pose, middle), sc.add(radius, sc.sqrt(la.dot(half, half)))


def _unit(x: Scalar) -> Scalar:
    return sc.minimum(sc.maximum(x, 0.0), 1.0)


def tangents(normal: Sequence[Scalar]) -> tuple[Vector, Vector]:
    """Two unit vectors that complete a normal to a right-handed frame, without a branch.

    Duff et al. 2017, "Building an orthonormal basis, revisited". A vertical normal gives the x
    and y axes.
    """
    x, y, z = normal
    sign = sc.where(sc.less(z, 0.0), -1.0, 1.0)
    a = sc.divide(-1.0, sc.add(sign, z))
    xy = sc.multiply(sc.multiply(x, y), a)
    first = [
        sc.add(1, sc.multiply(sign, sc.multiply(sc.multiply(x, x), a))),
        sc.multiply(sign, xy),
        sc.negative(sc.multiply(sign, x)),
    ]
    second = [xy, sc.add(sign, sc.multiply(sc.multiply(y, y), a)), sc.negative(y)]
    return first, second
