r"""One contact over one step: where it is, how fast it slips, what the cones answer.

At node k a candidate has a normal, two tangents and a contact point. Its velocities over the step
are the slip of the material points that meet there and the gap at node k+1 over h,

.. math:: u_t = T_k^T (y_a - y_b) / h, \qquad u_n = (\phi_{k+1} - \phi_{\mathrm{allowed}}) / h,

and its impulse (b, gamma) acts at node k: the friction at the surface, the normal along the line of
the closest points. Hard contact is the pair ``gamma u_n = kappa``, friction the second-order pair
``(mu gamma, b), (e, u_t)`` (maximum dissipation), both on the central path of ``kappa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from physim.collision import ContactGroup, tangents
from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc
from solvers.nonlinear import cones, projections

Scalar = Any
Vector = list[Scalar]
Pose = tuple[list[Vector], Vector]

WORLD: Pose = ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How violations at the start of a step are recovered.

    Attributes:
        dead_band: Violation that is not treated as one [m or rad].
        share: Part of the violation removed in a step.
        speed: Largest recovery speed [m/s or rad/s].
    """

    dead_band: float
    share: float
    speed: float


@dataclass(frozen=True, slots=True)
class ContactNode:
    """A candidate at node k: gap, frame (t1, t2, n), point, and that point in each link's axes."""

    gap: Scalar
    frame: list[Vector]
    point: Vector
    local_a: Vector
    local_b: Vector


@dataclass(frozen=True, slots=True)
class ContactMotion:
    """A candidate over the step.

    Attributes:
        velocity: Slip along both tangents and gap velocity [m/s].
        rows_a: Derivative of `velocity` with respect to link a's twist ``(w, v)``: 3 rows of 6.
        rows_b: The same for link b, to be subtracted; None for the world.
        gap: Gap at node k+1 [m].
    """

    velocity: Vector
    rows_a: list[Vector]
    rows_b: list[Vector] | None
    gap: Scalar


def allowed_overlap(gap: Scalar, timestep: Scalar, recovery: Recovery) -> Scalar:
    """Gap (negative or zero) that a violated constraint may keep at the next node.

    Violations inside the dead band are closed at once, so that nothing kinks where every resting
    contact sits. Deeper ones lose a share each step, but no faster than the recovery speed, which
    would otherwise stay as real momentum.
    """
    violation = sc.minimum(sc.add(gap, recovery.dead_band), 0.0)
    slow = sc.add(violation, sc.multiply(timestep, recovery.speed))
    return sc.minimum(sc.multiply(1.0 - recovery.share, violation), slow)


def contact_node(group: ContactGroup, a: Pose, b: Pose, numbers: Sequence[Scalar]) -> ContactNode:
    """Geometry of a candidate at node k."""
    gap, normal, point = group.witness(a, b, numbers)
    first, second = tangents(normal)
    local_a = la.matvec(la.transpose(a[0]), la.vsub(point, a[1]))
    local_b = la.matvec(la.transpose(b[0]), la.vsub(point, b[1]))
    return ContactNode(gap, [first, second, normal], point, local_a, local_b)


def impulse_rows(node: ContactNode) -> list[Vector]:
    """Rows (3 of 6) that map a twist to velocities at the contact point of node k."""
    return [[*la.cross(node.point, axis), *axis] for axis in node.frame]


def contact_motion(
    group: ContactGroup,
    node: ContactNode,
    a: Pose,
    b: Pose,
    numbers: Sequence[Scalar],
    timestep: Scalar,
    recovery: Recovery,
) -> ContactMotion:
    """Velocities of a candidate over a step that ends with links at poses ``a`` and ``b``."""
    gap, normal, point = group.witness(a, b, numbers)
    y_a = la.vadd(a[1], la.matvec(a[0], node.local_a))
    y_b = la.vadd(b[1], la.matvec(b[0], node.local_b)) if group.is_between_links else node.point
    inverse = sc.reciprocal(timestep)
    slip = la.vscale(la.vsub(y_a, y_b), inverse)
    allowed = allowed_overlap(node.gap, timestep, recovery)
    velocity = [
        la.dot(node.frame[0], slip),
        la.dot(node.frame[1], slip),
        sc.multiply(sc.subtract(gap, allowed), inverse),
    ]

    def rows(slip_point: Vector) -> list[Vector]:
        sliding = [[*la.cross(slip_point, axis), *axis] for axis in node.frame[:2]]
        return [*sliding, [*la.cross(point, normal), *normal]]

    rows_b = rows(y_b) if group.is_between_links else None
    return ContactMotion(velocity, rows(y_a), rows_b, gap)


@dataclass(frozen=True, slots=True)
class ContactResponse:
    """Linearised contact: impulse increment ``d(b, gamma) = offset - gain du``."""

    offset: Vector
    gain: list[Vector]
    normal: cones.OrthantResponse
    friction: cones.SecondOrderResponse
    defect: Vector
    bound_defect: Scalar
    mu: Scalar

    def increments(self, du: Vector) -> Vector:
        """Increments of all eight variables for the velocity increment ``du``."""
        ds = sc.subtract(du[2], self.defect[2])
        dy = [sc.subtract(du[k], self.defect[k]) for k in range(2)]
        dgamma = self.normal.increment(ds)
        dp = sc.add(sc.multiply(self.mu, dgamma), self.bound_defect)
        de, db = self.friction.increments(dp, dy)
        return [dgamma, dp, *db, ds, de, *dy]


def contact_inverses(z: Vector) -> Vector:
    """The three divisions of a linearised contact: 1/s, 1/e and the friction pivot."""
    gamma, p, b1, b2, s, e, y1, y2 = z
    del gamma
    return [sc.reciprocal(s), *cones.second_order_inverses(p, [b1, b2], e, [y1, y2])]


def contact_response(
    z: Vector,
    velocity: Vector,
    mu: Scalar,
    kappa: Scalar,
    correction: Vector | None = None,
    *,
    inverses: Vector | None = None,
) -> ContactResponse:
    """Linearise a contact's pairs around ``z`` and condense them to the impulse.

    Args:
        z: ``gamma, p, b1, b2`` and their duals ``s, e, y1, y2``.
        velocity: Slip and gap velocity that the current motion gives.
        mu: Friction coefficient.
        kappa: Central-path parameter aimed at.
        correction: Second-order terms of the predictor (normal; cone scalar, cone vector).
        inverses: `contact_inverses` if at hand.
    """
    gamma, p, b1, b2, s, e, y1, y2 = z
    if inverses is None:
        inverses = contact_inverses(z)
    terms = [0, 0, 0, 0] if correction is None else correction
    defect = [sc.subtract(y1, velocity[0]), sc.subtract(y2, velocity[1])]
    defect.append(sc.subtract(s, velocity[2]))
    bound_defect = sc.subtract(sc.multiply(mu, gamma), p)
    normal = cones.orthant_response(gamma, s, kappa, terms[0], inverse=inverses[0])
    friction = cones.second_order_response(
        p,
        [b1, b2],
        e,
        [y1, y2],
        kappa,
        (terms[1], terms[2:4]),
        inverses=(inverses[1], inverses[2]),
    )
    push = sc.add(normal.offset, sc.multiply(normal.gain, defect[2]))
    dp = sc.add(sc.multiply(mu, push), bound_defect)
    drag = la.vsub(
        la.vadd(friction.b_offset, la.vscale(friction.b_p, dp)),
        la.matvec(friction.b_y, defect[:2]),
    )
    coupling = la.vscale(friction.b_p, sc.multiply(mu, normal.gain))
    gain = [[sc.negative(x) for x in row] for row in friction.b_y]
    gain = [[*gain[0], coupling[0]], [*gain[1], coupling[1]], [0, 0, normal.gain]]
    return ContactResponse([*drag, push], gain, normal, friction, defect, bound_defect, mu)


def contact_products(z: Vector) -> Vector:
    """Jordan products of both pairs: normal; cone scalar, cone vector."""
    gamma, p, b1, b2, s, e, y1, y2 = z
    scalar, vector = cones.second_order_product(p, [b1, b2], e, [y1, y2])
    return [sc.multiply(gamma, s), scalar, *vector]


def contact_inverse_step(z: Vector, dz: Vector) -> Scalar:
    """One over the longest step that keeps all pairs of a contact inside their cones."""
    longest = sc.maximum(
        cones.orthant_inverse_step(dz[0], sc.reciprocal(z[0])),
        cones.orthant_inverse_step(dz[4], sc.reciprocal(z[4])),
    )
    for k in (1, 5):
        determinant = cones.second_order_determinant(z[k], z[k + 1 : k + 3])
        step = cones.second_order_inverse_step(
            z[k], z[k + 1 : k + 3], dz[k], dz[k + 1 : k + 3], sc.reciprocal(determinant)
        )
        longest = sc.maximum(longest, step)
    return longest


def contact_start(
    gap: Scalar, timestep: Scalar, mu: Scalar, slowest: Scalar, kappa: Scalar
) -> Vector:
    """A point on the central path far out: no slip, no friction, the gap closing in one step."""
    s = sc.maximum(sc.divide(gap, timestep), slowest)
    gamma = sc.divide(kappa, s)
    return [gamma, sc.multiply(mu, gamma), 0.0, 0.0, s, sc.divide(s, mu), 0.0, 0.0]


def contact_central(velocity: Vector, mu: Scalar, kappa: Scalar) -> Vector:
    """All eight variables on the central path of ``kappa`` for given velocities."""
    gamma = cones.orthant_central(velocity[2], kappa)
    p = sc.multiply(mu, gamma)
    e, b = cones.second_order_central(p, velocity[:2], kappa)
    return [gamma, p, *b, velocity[2], e, velocity[0], velocity[1]]


@dataclass(frozen=True, slots=True)
class NaturalResponse:
    """Newton step of a contact's natural residuals: ``d(b, gamma) = offset - gain du``.

    Attributes:
        offset: Along the tangents and the normal.
        gain: Square matrix in the same order.
        per_bound: Derivative of the friction with respect to its bound.
        value: Projected normal impulse.
        normal_miss: Natural residual of the normal pair, an impulse.
        friction_miss: Natural residual of the friction, an impulse.
    """

    offset: Vector
    gain: list[Vector]
    per_bound: Vector
    value: Scalar
    normal_miss: Scalar
    friction_miss: Vector


def natural_response(
    velocity: Vector,
    impulse: Vector,
    mu: Scalar,
    weights: tuple[Scalar, Scalar],
    cap: Scalar,
    kappa: Scalar | None = None,
) -> NaturalResponse:
    """Linearise a contact as fixed points of projections (see `solvers.nonlinear.projections`).

    Args:
        velocity: Slip along one or two tangents and gap velocity.
        impulse: Friction along the tangents and normal impulse.
        mu: Friction coefficient.
        weights: Effective masses along the normal and along the tangents.
        cap: Largest gain, in units of the effective masses.
        kappa: Central-path parameter; None is exact contact.
    """
    *friction, gamma = impulse
    *slip, approach = velocity
    normal = projections.orthant_newton(gamma, approach, weights[0], cap, kappa)
    if kappa is not None:
        bound = sc.multiply(mu, normal.value)
        disc = projections.disc_newton(friction, slip, bound, weights[1], cap, kappa)
        ahead = sc.add(normal.offset, normal.residual)
        offset, per_bound, miss, b_y = disc.offset, disc.b_p, disc.residual, disc.b_y
    else:
        bound = sc.multiply(mu, sc.maximum(gamma, 0.0))
        disc = projections.disc_newton(friction, slip, bound, weights[1], cap)
        ahead = normal.offset
        pushes = sc.greater(normal.value, 0.0)

        def closed(xs: Vector, otherwise: Vector) -> Vector:
            return [sc.where(pushes, x, y) for x, y in zip(xs, otherwise, strict=True)]

        # An open contact lets go of its friction.
        nothing = [0.0] * len(friction)
        offset = closed(disc.offset, [sc.negative(f) for f in friction])
        per_bound, miss = closed(disc.b_p, nothing), closed(disc.residual, friction)
        b_y = [closed(row, nothing) for row in disc.b_y]
    offset = la.vadd(offset, la.vscale(per_bound, sc.multiply(mu, ahead)))
    coupling = la.vscale(per_bound, sc.multiply(mu, normal.gain))
    gain = [[*row, x] for row, x in zip(b_y, coupling, strict=True)]
    gain.append([*[0] * len(friction), normal.gain])
    return NaturalResponse(
        [*offset, normal.offset], gain, per_bound, normal.value, normal.residual, miss
    )
