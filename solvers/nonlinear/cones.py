r"""Orthant and second-order cone pairs on the central path, as generic scalars.

A pair ``x, s`` in a cone and its dual is on the central path of parameter ``kappa`` when their
Jordan product is ``kappa`` times the neutral element:

* orthant: ``x s = kappa``;
* second order, ``x = (p, b)`` and ``s = (e, y)``: ``p e + b . y = kappa`` and ``p y + e b = 0``.

Everything an interior-point step needs is here once, for any layer that meets these cones: the
products, the linearised pair solved for the primal increment (so that pairs never enter the linear
system), the longest step to the boundary, the explicit central-path response. Vectors are lists of
generic scalars (Python numbers, torch batches, traced symbols; see `solvers.kernels.scalar`).

References: Alizadeh & Goldfarb 2003, "Second-order cone programming" (the algebra); Vandenberghe
2010, "The CVXOPT linear and quadratic cone program solvers", section 8.2 (step to the boundary).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

Scalar = Any
Vector = list[Scalar]

__all__ = [
    "OrthantResponse",
    "SecondOrderResponse",
    "orthant_central",
    "orthant_inverse_step",
    "orthant_response",
    "second_order_central",
    "second_order_determinant",
    "second_order_inverse_step",
    "second_order_inverses",
    "second_order_product",
    "second_order_response",
]


@dataclass(frozen=True, slots=True)
class OrthantResponse:
    """Increment ``dx = offset - gain ds`` of the primal of a linearised orthant pair."""

    offset: Scalar
    gain: Scalar

    def increment(self, ds: Scalar) -> Scalar:
        """Primal increment for the dual increment ``ds``."""
        return sc.subtract(self.offset, sc.multiply(self.gain, ds))


def orthant_response(
    x: Scalar, s: Scalar, kappa: Scalar, correction: Scalar = 0, *, inverse: Scalar | None = None
) -> OrthantResponse:
    """Linearise ``x s = kappa - correction`` and solve it for ``dx``.

    Args:
        x: Primal, positive.
        s: Dual, positive.
        kappa: Central-path parameter aimed at.
        correction: Second-order term of the predictor, ``dx ds``.
        inverse: One over ``s`` if at hand.
    """
    inverse = sc.reciprocal(s) if inverse is None else inverse
    target = sc.subtract(sc.subtract(kappa, sc.multiply(x, s)), correction)
    return OrthantResponse(sc.multiply(target, inverse), sc.multiply(x, inverse))


def orthant_inverse_step(dx: Scalar, inverse: Scalar) -> Scalar:
    """One over the longest step along ``dx`` from ``1 / inverse`` (at most 0 if any is)."""
    return sc.negative(sc.multiply(dx, inverse))


def orthant_central(s: Scalar, kappa: Scalar) -> Scalar:
    """Primal on the central path for the dual ``s``: ``kappa / s``."""
    return sc.divide(kappa, s)


@dataclass(frozen=True, slots=True)
class SecondOrderResponse:
    """Linearised second-order pair solved for ``de`` and ``db``.

    ``de = e_offset + e_p dp + e_y . dy`` and ``db = b_offset + b_p dp + b_y dy``.
    """

    e_offset: Scalar
    e_p: Scalar
    e_y: Vector
    b_offset: Vector
    b_p: Vector
    b_y: list[Vector]

    def increments(self, dp: Scalar, dy: Vector) -> tuple[Scalar, Vector]:
        """``de`` and ``db`` for given ``dp`` and ``dy``."""
        de = sc.add(self.e_offset, sc.add(sc.multiply(self.e_p, dp), la.dot(self.e_y, dy)))
        db = la.vadd(la.vadd(self.b_offset, la.vscale(self.b_p, dp)), la.matvec(self.b_y, dy))
        return de, db


def second_order_product(p: Scalar, b: Vector, e: Scalar, y: Vector) -> tuple[Scalar, Vector]:
    """Jordan product of ``(p, b)`` and ``(e, y)``."""
    return (
        sc.add(sc.multiply(p, e), la.dot(b, y)),
        la.vadd(la.vscale(y, p), la.vscale(b, e)),
    )


def second_order_inverses(p: Scalar, b: Vector, e: Scalar, y: Vector) -> tuple[Scalar, Scalar]:
    """``1 / e`` and ``1 / (p - b . y / e)``, the two divisions of a linearised pair."""
    inverse = sc.reciprocal(e)
    return inverse, sc.reciprocal(sc.subtract(p, sc.multiply(la.dot(b, y), inverse)))


def second_order_response(
    p: Scalar,
    b: Vector,
    e: Scalar,
    y: Vector,
    kappa: Scalar,
    correction: tuple[Scalar, Sequence[Scalar]] | None = None,
    *,
    inverses: tuple[Scalar, Scalar] | None = None,
) -> SecondOrderResponse:
    """Linearise the pair at ``kappa`` less a correction and solve it for ``de`` and ``db``.

    Args:
        p: Leading part of the primal, ``p > |b|``.
        b: Vector part of the primal.
        e: Leading part of the dual, ``e > |y|``.
        y: Vector part of the dual.
        kappa: Central-path parameter aimed at.
        correction: Second-order terms ``(dp de + db . dy, dp dy + de db)`` of the predictor.
        inverses: `second_order_inverses` if at hand.
    """
    inverse, pivot = second_order_inverses(p, b, e, y) if inverses is None else inverses
    scalar, vector = second_order_product(p, b, e, y)
    c0, c1 = sc.subtract(kappa, scalar), [sc.negative(x) for x in vector]
    if correction is not None:
        c0, c1 = sc.subtract(c0, correction[0]), la.vsub(c1, correction[1])
    e_offset = sc.multiply(pivot, sc.subtract(c0, sc.multiply(la.dot(y, c1), inverse)))
    e_p = sc.multiply(pivot, sc.subtract(sc.multiply(la.dot(y, y), inverse), e))
    e_y = la.vscale(la.vsub(la.vscale(y, sc.multiply(p, inverse)), b), pivot)
    b_offset = la.vscale(la.vsub(c1, la.vscale(b, e_offset)), inverse)
    b_p = la.vscale(la.vadd(y, la.vscale(b, e_p)), sc.negative(inverse))
    b_y = [
        [
            sc.negative(sc.multiply(sc.add(p if i == j else 0, sc.multiply(b[i], e_y[j])), inverse))
            for j in range(len(b))
        ]
        for i in range(len(b))
    ]
    return SecondOrderResponse(e_offset, e_p, e_y, b_offset, b_p, b_y)


def second_order_determinant(p: Scalar, b: Vector) -> Scalar:
    """``p^2 - |b|^2``, positive inside the cone."""
    return sc.subtract(sc.multiply(p, p), la.dot(b, b))


def second_order_inverse_step(
    p: Scalar, b: Vector, dp: Scalar, db: Vector, inverse_determinant: Scalar
) -> Scalar:
    """One over the longest step along ``(dp, db)`` inside the cone (at most 0 if any is)."""
    curvature = second_order_determinant(dp, db)
    slope = sc.subtract(sc.multiply(p, dp), la.dot(b, db))
    determinant = second_order_determinant(p, b)
    root = sc.maximum(
        sc.subtract(sc.multiply(slope, slope), sc.multiply(curvature, determinant)), 0.0
    )
    return sc.multiply(sc.subtract(sc.sqrt(root), slope), inverse_determinant)


def second_order_central(p: Scalar, y: Vector, kappa: Scalar) -> tuple[Scalar, Vector]:
    """``e`` and ``b`` on the central path for given ``p`` and ``y``.

    ``e`` solves ``e^2 - (kappa / p) e - |y|^2 = 0`` and ``b = -p y / e``: a regularised
    Coulomb law when ``p`` is the friction bound and ``y`` the slip.
    """
    half = sc.divide(sc.multiply(0.5, kappa), p)
    e = sc.add(half, sc.sqrt(sc.add(sc.multiply(half, half), la.dot(y, y))))
    return e, la.vscale(y, sc.negative(sc.divide(p, e)))
