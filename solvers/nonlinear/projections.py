r"""Cone pairs as fixed points of projections, linearised for Newton's method.

A pair ``x, s`` in a cone and its dual with ``x . s = 0`` is a zero of the natural residual

.. math:: x - P(x - \rho s), \qquad \rho > 0,

with the Euclidean projection P on the cone. P is piecewise smooth, so Newton's method on the
residual (semismooth Newton) finds *exact* solutions from a good start, in a few iterations and
without a path. With a central-path parameter ``kappa`` above zero P becomes the map whose fixed
points are the pairs with Jordan product ``kappa`` (Chen-Harker-Kanzow-Smale smoothing): the same
iteration then solves the smoothed problem.

Each function solves the linearised pair for the primal increment ``dx = offset - gain ds``. Where
the pair is active its exact gain is infinite (``s`` must vanish); ``cap`` bounds it in units of
``rho``, which costs a factor ``1 / cap`` of error per iteration and keeps redundant pairs solvable.

References: Alart & Curnier 1991, "A mixed formulation for frictional contact problems prone to
Newton like solution methods" (friction as a projection); Hintermüller, Ito & Kunisch 2002 (the
semismooth view); Fukushima, Luo & Tseng 2001, "Smoothing functions for second-order-cone
complementarity problems".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

Scalar = Any
Vector = list[Scalar]

__all__ = [
    "DiscNewton",
    "OrthantNewton",
    "SmoothRadius",
    "disc_newton",
    "orthant_newton",
    "smooth_radius",
]

_TINY = 1e-150
"""Keeps squares of lengths away from zero without changing one that means something."""

_RADIUS_ITERATIONS = 2
"""From a start within 4 % to three parts in 1e12."""


@dataclass(frozen=True, slots=True)
class OrthantNewton:
    """Increment ``dx = offset - gain ds`` of the primal, and the natural residual.

    Attributes:
        offset: Increment at ``ds = 0``.
        gain: Non-negative.
        value: The projection, what ``x`` is at the solution.
        residual: ``x - value``, in units of ``x``.
    """

    offset: Scalar
    gain: Scalar
    value: Scalar
    residual: Scalar

    def increment(self, ds: Scalar) -> Scalar:
        """Primal increment for the dual increment ``ds``."""
        return sc.subtract(self.offset, sc.multiply(self.gain, ds))


def orthant_newton(
    x: Scalar, s: Scalar, rho: Scalar, cap: Scalar, kappa: Scalar | None = None
) -> OrthantNewton:
    """Linearise ``x = max(x - rho s, 0)``, or its smoothing, and solve it for ``dx``.

    Args:
        x: Primal.
        s: Dual.
        rho: Positive weight; an effective mass where x is an impulse and s a velocity.
        cap: Largest gain, in units of ``rho``.
        kappa: Product ``x s`` aimed at; None is zero exactly.
    """
    z = sc.subtract(x, sc.multiply(rho, s))
    if kappa is None:
        closed = sc.greater(z, 0.0)
        gain = sc.where(closed, sc.multiply(cap, rho), 0.0)
        # Open pairs go to zero at once, closed ones let the gain drive s there.
        offset = sc.where(
            closed, sc.negative(sc.multiply(sc.multiply(cap, rho), s)), sc.negative(x)
        )
        value = sc.maximum(z, 0.0)
        return OrthantNewton(offset, gain, value, sc.subtract(x, value))
    spread = sc.multiply(rho, kappa)
    root = sc.sqrt(sc.add(sc.multiply(z, z), sc.multiply(4.0, spread)))
    # Half of root + |z| and of root - |z|, the second without cancellation.
    large = sc.multiply(0.5, sc.add(root, sc.absolute(z)))
    small = sc.divide(spread, large)
    is_closed = sc.greater(z, 0.0)
    value, rest = sc.where(is_closed, large, small), sc.where(is_closed, small, large)
    # The slope of the map is value / root, and rest / root is what it lacks to one.
    inverse = sc.reciprocal(sc.maximum(rest, sc.multiply(sc.reciprocal(cap), value)))
    gain = sc.multiply(sc.multiply(value, rho), inverse)
    residual = sc.subtract(x, value)
    offset = sc.negative(sc.multiply(sc.multiply(residual, root), inverse))
    return OrthantNewton(offset, gain, value, residual)


@dataclass(frozen=True, slots=True)
class DiscNewton:
    """Increment ``db = offset - b_y dy + b_p dp`` of a vector bounded by ``p``.

    Attributes:
        offset: Increment at ``dy = 0`` and ``dp = 0``.
        b_y: Symmetric non-negative matrix.
        b_p: Derivative with respect to the bound.
        residual: ``b`` less its projection.
    """

    offset: Vector
    b_y: list[Vector]
    b_p: Vector
    residual: Vector


def disc_newton(
    b: Vector, y: Vector, bound: Scalar, rho: Scalar, cap: Scalar, kappa: Scalar | None = None
) -> DiscNewton:
    """Linearise ``b = P(b - rho y)`` with P the projection on the disc of radius ``bound``.

    It says that b opposes y with ``|b| = bound`` where y is not zero (maximum dissipation, de
    Saxcé & Feng 1998); the direction of sliding is an unknown like any other.

    Args:
        b: Vector of one or two components.
        y: Its dual.
        bound: Radius, not negative; positive with ``kappa``.
        rho: Positive weight.
        cap: Largest gain, in units of ``rho``.
        kappa: Central-path parameter; None is zero exactly.
    """
    if len(b) == 1:
        return _interval_newton(b[0], y[0], bound, rho, cap, kappa)
    z = la.vsub(b, la.vscale(y, rho))
    length = sc.sqrt(sc.add(la.dot(z, z), _TINY * _TINY))
    normal = la.vscale(z, sc.reciprocal(length))
    if kappa is None:
        return _exact_disc(b, y, z, length, normal, bound, rho, cap)
    radius = smooth_radius(length, bound, sc.multiply(rho, kappa))
    value = la.vscale(normal, radius.value)
    # Gains along the direction of z and across it, each bounded by cap: a map of slope 1 / (1 + r)
    # lacks r / (1 + r) to one.
    along = sc.reciprocal(sc.maximum(radius.curvature, sc.reciprocal(cap)))
    across = sc.reciprocal(sc.maximum(radius.excess, sc.reciprocal(cap)))
    defect = la.vsub(value, b)
    b_y = _two_gains(normal, sc.multiply(rho, along), sc.multiply(rho, across))
    stretch = _two_gains(
        normal,
        sc.multiply(sc.add(1.0, radius.curvature), along),
        sc.multiply(sc.add(1.0, radius.excess), across),
    )
    b_p = la.vscale(normal, sc.multiply(radius.widening, along))
    return DiscNewton(la.matvec(stretch, defect), b_y, b_p, la.vsub(b, value))


def _interval_newton(
    b: Scalar, y: Scalar, bound: Scalar, rho: Scalar, cap: Scalar, kappa: Scalar | None
) -> DiscNewton:
    """One component: there is no direction to turn, so no root and no quotient."""
    z = sc.subtract(b, sc.multiply(rho, y))
    length = sc.absolute(z)
    side = sc.where(sc.less(z, 0.0), -1.0, 1.0)
    if kappa is None:
        slides, stick = sc.greater(length, bound), sc.multiply(cap, rho)
        value = sc.where(slides, sc.multiply(bound, side), z)
        offset = sc.where(
            slides, sc.subtract(sc.multiply(bound, side), b), sc.negative(sc.multiply(stick, y))
        )
        gain, per_bound = sc.where(slides, 0.0, stick), sc.where(slides, side, 0.0)
        return DiscNewton([offset], [[gain]], [per_bound], [sc.subtract(b, value)])
    radius = smooth_radius(length, bound, sc.multiply(rho, kappa))
    value = sc.multiply(radius.value, side)
    along = sc.reciprocal(sc.maximum(radius.curvature, sc.reciprocal(cap)))
    stretch = sc.multiply(sc.add(1.0, radius.curvature), along)
    return DiscNewton(
        [sc.multiply(stretch, sc.subtract(value, b))],
        [[sc.multiply(rho, along)]],
        [sc.multiply(side, sc.multiply(radius.widening, along))],
        [sc.subtract(b, value)],
    )


def _exact_disc(
    b: Vector,
    y: Vector,
    z: Vector,
    length: Scalar,
    normal: Vector,
    bound: Scalar,
    rho: Scalar,
    cap: Scalar,
) -> DiscNewton:
    slides = sc.greater(length, bound)
    share = sc.multiply(bound, sc.reciprocal(length))
    inverse = sc.divide(cap, sc.maximum(sc.multiply(cap, sc.subtract(1.0, share)), share))
    stick = sc.multiply(cap, rho)
    # Sliding: the length goes to the bound, the direction turns towards -y.
    excess = sc.subtract(bound, la.dot(b, normal))
    side = la.vsub(b, la.vscale(normal, la.dot(b, normal)))
    turn = la.vsub(la.vscale(normal, excess), la.vscale(side, inverse))
    offset = [
        sc.where(slides, t, sc.negative(sc.multiply(stick, u)))
        for t, u in zip(turn, y, strict=True)
    ]
    across = sc.multiply(sc.multiply(share, rho), inverse)
    gain = _two_gains(normal, 0.0, across)
    b_y = [
        [sc.where(slides, gain[i][j], stick if i == j else 0.0) for j in range(len(b))]
        for i in range(len(b))
    ]
    b_p = [sc.where(slides, n, 0.0) for n in normal]
    value = [sc.where(slides, sc.multiply(bound, n), x) for n, x in zip(normal, z, strict=True)]
    return DiscNewton(offset, b_y, b_p, la.vsub(b, value))


def _two_gains(normal: Vector, along: Scalar, across: Scalar) -> list[Vector]:
    """``along n n' + across (1 - n n')``."""
    difference = sc.subtract(along, across)
    return [
        [
            sc.add(
                across if i == j else 0.0,
                sc.multiply(difference, sc.multiply(normal[i], normal[j])),
            )
            for j in range(len(normal))
        ]
        for i in range(len(normal))
    ]


@dataclass(frozen=True, slots=True)
class SmoothRadius:
    """Length of the smoothed projection on a disc.

    Attributes:
        value: The length.
        excess: What the length of the argument exceeds it by, in units of it.
        curvature: Its derivative with respect to that length is ``1 / (1 + curvature)``.
        widening: Its derivative with respect to the bound is ``widening / (1 + curvature)``.
    """

    value: Scalar
    excess: Scalar
    curvature: Scalar
    widening: Scalar


def smooth_radius(length: Scalar, bound: Scalar, spread: Scalar) -> SmoothRadius:
    r"""Length of the smoothed projection on a disc, and its derivatives.

    The central path of the second-order pair bounds ``beta`` by

    .. math:: \beta + c \beta / (p^2 - \beta^2) = t, \qquad 0 \le \beta < p,

    with ``t`` the length of ``b - rho y``, ``p`` the bound and ``c = rho kappa``. With
    ``beta = t / (1 + e)`` the excess e is the largest root of
    ``e ((1 + e)^2 - t^2/p^2) = (c/p^2) (1 + e)^2``, all of whose roots are real. With the share
    ``(1 + e) / (1 + e + t/p)`` known it is a quadratic; that of ``e = max(t/p - 1, 0) + c/p^2``
    leaves at most 4 %, and Halley's method makes three times the digits in every iteration.

    Args:
        length: t, positive.
        bound: p, positive.
        spread: c, positive.
    """
    per_bound = sc.reciprocal(bound)
    ratio = sc.multiply(length, per_bound)
    gamma = sc.multiply(spread, sc.multiply(per_bound, per_bound))
    stretch = sc.add(sc.maximum(ratio, 1.0), gamma)
    part = sc.multiply(gamma, sc.divide(stretch, sc.add(stretch, ratio)))
    # The positive root of e (e + 1 - t/p) = part (e + 1).
    middle = sc.multiply(0.5, sc.subtract(sc.add(ratio, part), 1.0))
    root = sc.sqrt(sc.add(sc.multiply(middle, middle), part))
    total = sc.add(root, sc.absolute(middle))
    excess = sc.where(sc.greater(middle, 0.0), total, sc.divide(part, total))
    for _ in range(_RADIUS_ITERATIONS):
        stretch = sc.add(1.0, excess)
        inner = sc.multiply(sc.subtract(stretch, ratio), sc.add(stretch, ratio))
        value = sc.subtract(
            sc.multiply(excess, inner), sc.multiply(gamma, sc.multiply(stretch, stretch))
        )
        slope = sc.add(inner, sc.multiply(sc.multiply(2.0, stretch), sc.subtract(excess, gamma)))
        half_bend = sc.add(2.0, sc.subtract(sc.multiply(3.0, excess), gamma))
        curved = sc.subtract(sc.multiply(slope, slope), sc.multiply(value, half_bend))
        excess = sc.subtract(excess, sc.divide(sc.multiply(value, slope), curved))
    beta = sc.divide(length, sc.add(1.0, excess))
    # p^2 - beta^2 = c / e, free of cancellation.
    per_room = sc.divide(excess, spread)
    gain = sc.multiply(spread, sc.multiply(per_room, per_room))
    curvature = sc.multiply(gain, sc.add(sc.multiply(bound, bound), sc.multiply(beta, beta)))
    widening = sc.multiply(sc.multiply(2.0, gain), sc.multiply(beta, bound))
    return SmoothRadius(beta, excess, curvature, widening)
