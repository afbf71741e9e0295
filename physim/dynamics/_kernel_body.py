"""Strings traced phases and loops over candidates together into one native body."""

from __future__ import annotations

import math
from importlib import resources

from physim.dynamics._adjoint_contacts import (
    adjoint_contact_phases,
    linearised_contact_phases,
)
from physim.dynamics._adjoint_phases import AdjointPhases
from physim.dynamics._advance import REPORT
from physim.dynamics._candidate_loops import candidate_tables, filled
from physim.dynamics._contact_phases import contact_phases
from physim.dynamics._elimination import elimination_source
from physim.dynamics._jacobian_phases import JacobianPhases
from physim.dynamics._layers import POLICY_MOST
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._newton_body import (
    axis_tables,
    ball_loop,
    ball_tables,
    contact_loop,
    newton_records,
    tree_tables,
    weight_tables,
)
from physim.dynamics._newton_contacts import NewtonContacts
from physim.dynamics._newton_phases import GAIN_MOST, STALLED, NewtonPhases
from physim.dynamics._phases import StepPhases
from physim.dynamics._settings import SolverSettings
from physim.dynamics._structure import Structure
from physim.dynamics._tangent_phases import TangentPhases
from physim.dynamics._weights import Weights
from solvers.core import Status
from solvers.kernels import KernelPart

NEWTON_STAGE = 2
"""Iterations at each stage on the way from a softer problem down to the problem itself."""

_PATH_PARAMETERS = (
    *((name, "const V*") for name in ("q", "v", "force", "steps", "num", "kappas")),
    ("stages", "int"),
    ("wanted", "M"),
    *((name, "V*") for name in ("x_out", "limit_out", "rub_out", "impulse_out", "report")),
)

SLOTS_MOST = 16
"""Contacts between links that an environment may push with at once before Newton gives up."""

TEAM_MOST = 256
"""Most blocks of lanes that one thread serves from one set of queues."""

PATIENCE = 8
"""Rounds for which an environment waits until a block of its kind has gathered."""


def _reals(name: str, values: list[float]) -> str:
    return f"constexpr double {name}[] = {{{', '.join(map(repr, values))}}};"


_RESET = """
{ V kept_x[NQ + 1], kept_limit[4 * LIMITS + 1], kept_rub[3 * RUBS + 1];
  for (int i = 0; i < NQ; ++i) kept_x[i] = x[i];
  for (int i = 0; i < 4 * LIMITS; ++i) kept_limit[i] = limit[i];
  for (int i = 0; i < 3 * RUBS; ++i) kept_rub[i] = rub[i];
  @GUESS@
  @JOINT_START@
  for (int i = 0; i < NQ; ++i) x[i] = chosen ? x[i] : kept_x[i];
  for (int i = 0; i < 4 * LIMITS; ++i) limit[i] = chosen ? limit[i] : kept_limit[i];
  for (int i = 0; i < 3 * RUBS; ++i) rub[i] = chosen ? rub[i] : kept_rub[i];
  @CONTACTS:RESTART@
}
"""


def step_body(
    mechanism: Mechanism, settings: SolverSettings, zeros: frozenset[int], weights: Weights
) -> str:
    """C++ text of steps of a batch for `solvers.kernels.build_kernel`; calls `path_part`.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings; they are constants of the body.
        zeros: Slots of the flat numbers that are zero by structure.
        weights: Effective masses.
    """
    phases = NewtonPhases(mechanism, zeros, weights.joints, settings.gain_cap)
    newton = template("newton.cpp").replace("@NEWTON_RECORDS@", newton_records(mechanism))
    couple = template("couple.cpp") if phases.has_couplings else ""
    newton = newton.replace("@COUPLE@", couple)
    cap = settings.gain_cap
    structure = phases.structure
    contacts = [NewtonContacts(mechanism, group, structure, cap) for group in mechanism.groups]
    kinds = [contact.blocks for contact in contacts]
    for pose in ("pose0", "pose1"):
        newton = newton.replace(f"@BALLS:{pose}@", ball_loop(mechanism, pose, kinds))
    for what in ("NODE", "PRESS", "INCREMENT", "RECHECK"):
        loop = contact_loop(mechanism, what, kinds)
        newton = newton.replace(f"@NEWTON:{what}@", loop)
    batch = template("step_batch.cpp").replace("@BLOCK_STEP@", template("block_step.cpp"))
    batch = template("policy.cpp") + batch
    for name, block in phases.blocks.items():
        newton = newton.replace(f"@{name}@", block)
    for name, block in phases.frame().items():
        batch = batch.replace(f"@{name}@", block)
    axes = {axis for c in contacts if c.is_between_links for axis in c.axes}
    head = [
        _constants(mechanism, settings),
        weight_tables(weights),
        ball_tables(mechanism),
        axis_tables(structure.moves, sorted(axes)),
    ]
    if phases.has_couplings:
        head.append(tree_tables(mechanism.tree, phases.eliminated, phases.roots))
    return "\n".join([*head, newton, batch])


def path_part(mechanism: Mechanism, settings: SolverSettings, zeros: frozenset[int]) -> KernelPart:
    """The interior point, called by `step_body` where Newton's method fails.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings.
        zeros: Slots of the flat numbers that are zero by structure.
    """
    text = template("interior_point.cpp").replace("@RESET@", _RESET)
    kinds = [contact_phases(mechanism, group) for group in mechanism.groups]
    path = filled(mechanism, text, StepPhases(mechanism, zeros).blocks, kinds)
    head = [_constants(mechanism, settings), elimination_source(mechanism.tree)]
    return KernelPart("interior_point", _PATH_PARAMETERS, "\n".join([*head, path]))


def adjoint_body(
    mechanism: Mechanism,
    settings: SolverSettings,
    zeros: frozenset[int],
    weights: Weights,
    *,
    frame: str | None = None,
    with_numbers: bool,
    is_exact: bool,
) -> str:
    """C++ text of the adjoint of steps.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings.
        zeros: Slots of the flat numbers that are zero by structure.
        weights: Effective masses.
        frame: Text that calls the adjoint of one step; one call per block if None.
        with_numbers: Whether cotangents of the numbers are wanted.
        is_exact: Whether contact is exact.
    """
    phases: AdjointPhases
    structure = Structure.unknown()
    if with_numbers:
        phases = AdjointPhases(mechanism, zeros, weights.joints, is_exact=is_exact)
    else:
        phases = TangentPhases(mechanism, zeros, weights.joints, is_exact=is_exact)
        structure = phases.structure
    options = {"with_numbers": with_numbers, "is_exact": is_exact}
    kinds = [
        adjoint_contact_phases(mechanism, group, structure, **options) for group in mechanism.groups
    ]
    flags = f"constexpr bool WITH_NUMBERS = {str(with_numbers).lower()};\n"
    flags += f"constexpr bool EXACT = {str(is_exact).lower()};\n"
    text = flags + template("adjoint_loop.cpp") + template("seats.cpp")
    text += frame or template("adjoint_single.cpp")
    body = filled(mechanism, text, phases.blocks, kinds)
    head = [_constants(mechanism, settings), weight_tables(weights)]
    return "\n".join([*head, elimination_source(mechanism.tree), body])


def jacobian_body(
    mechanism: Mechanism,
    settings: SolverSettings,
    zeros: frozenset[int],
    weights: Weights,
    *,
    is_exact: bool,
) -> str:
    """C++ text of all derivatives of a step; arguments as for `adjoint_body`."""
    phases = JacobianPhases(mechanism, zeros, weights.joints, is_exact=is_exact)
    kinds = [
        linearised_contact_phases(mechanism, group, phases.structure, is_exact=is_exact)
        for group in mechanism.groups
    ]
    flags = f"constexpr bool EXACT = {str(is_exact).lower()};\n"
    body = filled(
        mechanism, flags + template("seats.cpp") + template("jacobian.cpp"), phases.blocks, kinds
    )
    head = [_constants(mechanism, settings), weight_tables(weights)]
    return "\n".join([*head, elimination_source(mechanism.tree), body])


def template(name: str) -> str:
    return resources.files("physim.dynamics").joinpath(name).read_text()


def _constants(mechanism: Mechanism, settings: SolverSettings) -> str:
    """Sizes, settings and tables of the body."""
    scales = mechanism.scales
    constants = {
        "NQ": mechanism.tree.nq,
        "NV": mechanism.tree.nv,
        "NU": len(mechanism.actuators),
        "NL": len(mechanism.tree.links),
        "LIMITS": len(mechanism.limits),
        "RUBS": len(mechanism.rubbing),
        "CONTACTS": mechanism.contact_count,
        "NUMBERS": mechanism.layout.size,
        "REPORT": len(REPORT),
        "MAX_ITERATIONS": settings.max_iterations,
        "ATTEMPT_ITERATIONS": settings.attempt_iterations,
        "NEWTON_MOST": settings.newton_iterations,
        "NEWTON_FIRST": settings.newton_first,
        "NEWTON_MORE": settings.newton_iterations - settings.newton_first,
        "NEWTON_STAGE": min(NEWTON_STAGE, settings.newton_iterations - settings.newton_first),
        "STAGES": round(math.log10(settings.soft_rescue / settings.rescue_smoothing)),
        "TEAM_MOST": TEAM_MOST,
        "PATIENCE": PATIENCE,
        "PAIRS": sum(g.count for g in mechanism.groups if g.is_between_links),
        "SLOTS_MOST": SLOTS_MOST,
        "POLICY_MOST": POLICY_MOST,
        "FAILED": int(Status.MAX_ITERATIONS),
        "NON_FINITE": int(Status.NON_FINITE),
        "ROUNDS": 2 + mechanism.contact_count,
    }
    reals = {
        "TOLERANCE": settings.tolerance,
        "PATH_TOLERANCE": settings.path_tolerance,
        "ENERGY": scales.energy,
        "NEWTON_TOLERANCE": settings.newton_tolerance * _rest_of_newton(mechanism),
        "SOFTENING": settings.soft_rescue / settings.rescue_smoothing,
        "GAIN_CAP": settings.gain_cap,
        "GAIN_GROWTH": settings.gain_growth,
        "GAIN_MOST": max(GAIN_MOST, settings.gain_cap),
        "STALLED": STALLED,
        "SEARCH": scales.velocity,
        "PRUNING": settings.pruning_distance * scales.velocity,
    }
    lines = [f"constexpr int {name} = {value};" for name, value in constants.items()]
    lines += [f"constexpr double {name} = {value!r};" for name, value in reals.items()]
    attempts = settings.attempts
    lines += [
        _reals("START", [scales.energy * attempt.start for attempt in attempts]),
        _reals("SLOWEST", [scales.velocity * attempt.slowest for attempt in attempts]),
        _reals("FRACTION", [attempt.fraction for attempt in attempts]),
    ]
    coupled = any(group.is_between_links for group in mechanism.groups)
    lines.append(f"constexpr bool COUPLED = {str(coupled).lower()};")
    return "\n".join([*lines, candidate_tables(mechanism)])


def _rest_of_newton(mechanism: Mechanism) -> float:
    """How much smaller the residual before the last step must be where Newton is not quite Newton.

    The tree's elimination leaves out how armature and dampers of a ball joint couple its axes.
    """
    return 1e-2 if any(joint.kind == "ball" for joint in mechanism.tree.joints) else 1.0
