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
TINY = 1e-24
"""Square of a distance that counts as none [m^2]."""
ALIKE = 1e-3
"""Sine squared of the angle below which crossing capsules leave the contact to their ends."""
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
    return _closest(a, b, numbers)[0]


def crossing_capsules(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    r"""`segment_segment` of capsules whose ends are candidates too, as one can lie on the other.

    Their closest point jumps from end to end where they are nearly parallel; a force there would
    lift an end that is elsewhere. The ends therefore come first, by a margin of
    :math:`\epsilon (r_a + r_b) / (1 + \sin^2 \theta / \epsilon)^2` with :math:`\epsilon` = `ALIKE`.
    """
    (gap, normal, point), alike = _closest(a, b, numbers)
    radii = sc.add(numbers[6], numbers[13])
    margin = sc.multiply(ALIKE, sc.multiply(sc.multiply(alike, alike), radii))
    return sc.add(gap, margin), normal, point


def _closest(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> tuple[Witness, Scalar]:
    """Witness of two capsules, and how alike their directions are: 1 / (1 + sin^2 / ALIKE)."""
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
    alike = sc.multiply(ALIKE, product)
    alike = sc.divide(alike, sc.add(sc.add(sc.maximum(area, 0.0), alike), 1e-200))
    return (gap, normal, la.vadd(near_b, la.vscale(normal, middle))), alike


def ball_box(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Ball in a box: centre (3) and radius of a; centre (3), half sizes (3), axes (9) of b.

    Outside, the normal comes from the nearest point of the box; a centre that is inside leaves
    through the nearest face.
    """
    center, radius = world_point(a, numbers[0:3]), numbers[3]
    middle, half = world_point(b, numbers[4:7]), numbers[7:10]
    turn = la.matmul(b[0], [list(numbers[10 + 3 * i : 13 + 3 * i]) for i in range(3)])
    axes = la.transpose(turn)
    local = la.matvec(axes, la.vsub(center, middle))
    beyond = [sc.subtract(x, _within(x, h)) for x, h in zip(local, half, strict=True)]
    depth = [sc.subtract(h, sc.absolute(x)) for x, h in zip(local, half, strict=True)]
    least = sc.minimum(sc.minimum(depth[0], depth[1]), depth[2])
    signs = [sc.where(sc.less(x, 0.0), -1.0, 1.0) for x in local]
    # Of faces that are equally near the first one counts.
    is_x, is_y = (sc.less_equal(d, least) for d in depth[:2])
    way_out = [
        sc.where(is_x, signs[0], 0.0),
        sc.where(is_x, 0.0, sc.where(is_y, signs[1], 0.0)),
        sc.where(is_x, 0.0, sc.where(is_y, 0.0, signs[2])),
    ]
    return _leave(center, radius, turn, beyond, least, way_out)


def ball_cylinder(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """Ball in a cylinder: centre (3), radius of a; centre (3), axis (3), radius, half length of b.

    As `ball_box`, in the plane through the axis and the ball's centre.
    """
    center, radius = world_point(a, numbers[0:3]), numbers[3]
    middle, axis = world_point(b, numbers[4:7]), la.matvec(b[0], numbers[7:10])
    wide, half = numbers[10], numbers[11]
    away = la.vsub(center, middle)
    along = la.dot(axis, away)
    across = la.vsub(away, la.vscale(axis, along))
    reach = sc.sqrt(sc.add(la.dot(across, across), TINY))
    outward = la.vscale(across, sc.reciprocal(reach))
    beyond = [
        sc.subtract(reach, sc.minimum(reach, wide)),
        sc.subtract(along, _within(along, half)),
    ]
    side, end = sc.subtract(wide, reach), sc.subtract(half, sc.absolute(along))
    through_side = sc.less(side, end)
    up = sc.where(sc.less(along, 0.0), -1.0, 1.0)
    way_out = [sc.where(through_side, 1.0, 0.0), sc.where(through_side, 0.0, up)]
    turn = la.transpose([outward, axis])
    return _leave(center, radius, turn, beyond, sc.minimum(side, end), way_out)


def box_ball(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """`ball_box` with the sides exchanged: numbers of the box, then of the ball."""
    return _exchanged(ball_box(b, a, [*numbers[15:19], *numbers[:15]]))


def cylinder_ball(a: Pose, b: Pose, numbers: Sequence[Scalar]) -> Witness:
    """`ball_cylinder` with the sides exchanged: numbers of the cylinder, then of the ball."""
    return _exchanged(ball_cylinder(b, a, [*numbers[8:12], *numbers[:8]]))


def _leave(
    center: Vector,
    radius: Scalar,
    turn: list[Vector],
    beyond: Vector,
    depth: Scalar,
    way_out: Vector,
) -> Witness:
    """Witness of a ball and a solid, from where the ball's centre is to the solid.

    As on a plane, the contact point is on the ball.

    Args:
        center: Of the ball.
        radius: Of the ball.
        turn: Directions, as columns, that the rest is given in.
        beyond: From the nearest point of the solid to the centre; zero inside.
        depth: How far below the nearest face the centre is; read inside.
        way_out: Outward normal of that face.
    """
    squared = la.dot(beyond, beyond)
    is_outside = sc.greater(squared, TINY)
    distance = sc.sqrt(sc.add(squared, TINY))
    per_distance = sc.reciprocal(distance)
    local = [
        sc.where(is_outside, sc.multiply(x, per_distance), y)
        for x, y in zip(beyond, way_out, strict=True)
    ]
    normal = la.matvec(turn, local)
    gap = sc.subtract(sc.where(is_outside, distance, sc.negative(depth)), radius)
    return gap, normal, la.vsub(center, la.vscale(normal, radius))


def _exchanged(found: Witness) -> Witness:
    gap, normal, point = found
    return gap, [sc.negative(x) for x in normal], point


def ball_around_ball(pose: Pose, numbers: Sequence[Scalar]) -> tuple[Vector, Scalar]:
    """Centre and radius of a ball, in the world."""
    return world_point(pose, numbers[0:3]), numbers[3]


def ball_around_segment(pose: Pose, numbers: Sequence[Scalar]) -> tuple[Vector, Scalar]:
    """Centre and radius of the ball around a capsule: ends (3 + 3) and radius of the capsule."""
    start, end, radius = numbers[0:3], numbers[3:6], numbers[6]
    middle = la.vscale(la.vadd(start, end), 0.5)
    half = la.vscale(la.vsub(start, end), 0.5)
    return world_point(pose, middle), sc.add(radius, sc.sqrt(la.dot(half, half)))


def ball_around_box(pose: Pose, numbers: Sequence[Scalar]) -> tuple[Vector, Scalar]:
    """Centre and radius of the ball around a box: centre (3), half sizes (3)."""
    return world_point(pose, numbers[0:3]), sc.sqrt(la.dot(numbers[3:6], numbers[3:6]))


def ball_around_cylinder(pose: Pose, numbers: Sequence[Scalar]) -> tuple[Vector, Scalar]:
    """Centre and radius of the ball around a cylinder: centre, axis, radius, half length."""
    return world_point(pose, numbers[0:3]), sc.sqrt(la.dot(numbers[6:8], numbers[6:8]))


def _within(x: Scalar, half: Scalar) -> Scalar:
    return sc.minimum(sc.maximum(x, sc.negative(half)), half)


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
