"""Phases of one contact candidate: traced once per kind, looped over the candidates."""

from __future__ import annotations

from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import Outputs, flatten, masked, node_values, read_node, side_poses
from solvers.kernels import algebra as la
from solvers.kernels import emit_block
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape

Scalar = Any


def contact_phases(mechanism: Mechanism, group: ContactGroup) -> dict[str, str]:
    """Blocks of one kind of candidate.

    The arrays are: ``a0 b0 a1 b1`` poses of both sides at both nodes, ``k`` the candidate's
    numbers, ``cn`` its node record, ``z`` its eight variables, ``rows`` its velocity rows, ``on``
    the mask of lanes in which it takes part.
    """
    return {
        "NODE": _node(group),
        "START": _start(group),
        "GAP": _gap(group),
        "LINEARISE": _linearise(mechanism, group),
        "PUSH": _push(group),
        "INCREMENT": _increment(group),
    }


def _node(group: ContactGroup) -> str:
    """Geometry at node k, and the approach speed of the past velocity."""
    tape = Tape()
    a, b = side_poses(tape, group, "0")
    node = contact.contact_node(group, a, b, tape.inputs("k", group.width))
    outputs: Outputs = [("cn", i, x) for i, x in enumerate(node_values(node))]
    row = contact.impulse_rows(node)[2]
    speed = la.dot(row, tape.inputs("va", 6))
    if group.is_between_links:
        speed = speed - la.dot(row, tape.inputs("vb", 6))
    closest = node.gap + tape.input("steps", 1) * sc.minimum(speed, 0.0)
    outputs.append(("closest", 0, closest))
    return emit_block(outputs)


def _start(group: ContactGroup) -> str:
    tape = Tape()
    z = contact.contact_start(
        tape.input("cn", 0),
        tape.input("steps", 1),
        tape.input("k", group.width - 1),
        tape.input("slowest"),
        tape.input("far"),
    )
    return emit_block([("z", i, x) for i, x in enumerate(z)])


def _gap(group: ContactGroup) -> str:
    tape = Tape()
    a, b = side_poses(tape, group, "1")
    return emit_block([("gap", 0, group.witness(a, b, tape.inputs("k", group.width))[0])])


def _linearise(mechanism: Mechanism, group: ContactGroup) -> str:
    """Velocities, rows, errors; adds the impulse and the condensed response to the links."""
    tape = Tape()
    a, b = side_poses(tape, group, "1")
    node, numbers = read_node(tape, "cn"), tape.inputs("k", group.width)
    z, mu = tape.inputs("z", 8), numbers[-1]
    kappa = tape.input("kappa", 0)
    motion = contact.contact_motion(
        group, node, a, b, numbers, tape.input("steps", 1), mechanism.recovery
    )
    inverses = contact.contact_inverses(z)
    response = contact.contact_response(z, motion.velocity, mu, kappa, inverses=inverses)
    outputs: Outputs = [("vel", i, x) for i, x in enumerate(motion.velocity)]
    outputs += [("inv", i, x) for i, x in enumerate(inverses)]
    outputs += [("rows", i, x) for i, x in enumerate(flatten(motion.rows_a))]
    outputs.append(("gap", 0, motion.gap))
    impulse_rows = contact.impulse_rows(node)
    impulse = [masked(tape, x) for x in (z[2], z[3], z[0])]
    load = la.matvec(la.transpose(impulse_rows), impulse)
    outputs += [("wa", i, tape.input("wa", i) - x) for i, x in enumerate(load)]
    gain = [[masked(tape, x) for x in row] for row in response.gain]
    if motion.rows_b is None:
        answer = la.matmul(la.transpose(impulse_rows), la.matmul(gain, motion.rows_a))
        outputs += [("pa", i, tape.input("pa", i) + x) for i, x in enumerate(flatten(answer))]
    else:
        outputs += [("wb", i, tape.input("wb", i) + x) for i, x in enumerate(load)]
        outputs += [("rows", 18 + i, x) for i, x in enumerate(flatten(motion.rows_b))]
        outputs += [("rows", 36 + i, x) for i, x in enumerate(flatten(impulse_rows))]
        outputs += [("gain", i, x) for i, x in enumerate(flatten(gain))]
    outputs += _errors(tape, mechanism, z, response, kappa)
    return emit_block(outputs)


def _errors(
    tape: Tape, mechanism: Mechanism, z: list[Scalar], response: contact.ContactResponse, kappa: Any
) -> Outputs:
    """Residual and path error of a candidate, and its products' sum."""
    scales = mechanism.scales
    per_speed, per_impulse = 1.0 / scales.velocity, 1.0 / (scales.mass * scales.velocity)
    worst = sc.absolute(response.defect[0])
    for x in response.defect[1:]:
        worst = sc.maximum(worst, sc.absolute(x))
    bound = sc.absolute(response.bound_defect) * per_impulse
    residual = sc.maximum(worst * per_speed, bound)
    normal, scalar, *vector = contact.contact_products(z)
    per_kappa = sc.reciprocal(kappa)
    path = sc.maximum(sc.absolute(normal * per_kappa - 1.0), sc.absolute(scalar * per_kappa - 1.0))
    for x in vector:
        path = sc.maximum(path, sc.absolute(x * per_kappa))
    return [
        ("err", 0, sc.maximum(tape.input("err", 0), masked(tape, residual))),
        ("err", 1, sc.maximum(tape.input("err", 1), masked(tape, path))),
        ("total", 0, tape.input("total", 0) + masked(tape, normal + scalar)),
    ]


def _response(tape: Tape, group: ContactGroup) -> contact.ContactResponse:
    """The linearised contact towards ``target``, corrected by the predictor ``affine``."""
    affine = tape.inputs("affine", 8)
    products = contact.contact_products(affine)
    second = tape.input("second", 0)
    return contact.contact_response(
        tape.inputs("z", 8),
        tape.inputs("vel", 3),
        tape.input("k", group.width - 1),
        tape.input("target", 0),
        [second * x for x in products],
        inverses=tape.inputs("inv", 3),
    )


def _push(group: ContactGroup) -> str:
    """Adds the offset of the linearised impulse to the links' wrenches."""
    tape = Tape()
    offset = [masked(tape, x) for x in _response(tape, group).offset]
    rows = contact.impulse_rows(read_node(tape, "cn"))
    load = la.matvec(la.transpose(rows), offset)
    outputs: Outputs = [("fa", i, tape.input("fa", i) + x) for i, x in enumerate(load)]
    if group.is_between_links:
        outputs += [("fb", i, tape.input("fb", i) - x) for i, x in enumerate(load)]
    return emit_block(outputs)


def _increment(group: ContactGroup) -> str:
    """Increments of the variables, longest step and product sums along them."""
    tape = Tape()
    z = tape.inputs("z", 8)
    rows = [tape.inputs("rows", 6, 6 * r) for r in range(3)]
    du = la.matvec(rows, tape.inputs("ta", 6))
    if group.is_between_links:
        other = [tape.inputs("rows", 6, 18 + 6 * r) for r in range(3)]
        du = la.vsub(du, la.matvec(other, tape.inputs("tb", 6)))
    dz = [masked(tape, x) for x in _response(tape, group).increments(du)]
    step = masked(tape, contact.contact_inverse_step(z, dz))
    slope = la.dot(z[:4], dz[4:]) + la.dot(z[4:], dz[:4])
    bend = la.dot(dz[:4], dz[4:])
    outputs: Outputs = [("dz", i, x) for i, x in enumerate(dz)]
    outputs.append(("inverse_step", 0, sc.maximum(tape.input("inverse_step", 0), step)))
    outputs.append(("ahead", 0, tape.input("ahead", 0) + slope))
    outputs.append(("ahead", 1, tape.input("ahead", 1) + bend))
    return emit_block(outputs)
