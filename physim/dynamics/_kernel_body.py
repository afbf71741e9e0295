"""Strings traced phases and loops over candidates together into one native body."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources

from physim.collision import ContactGroup
from physim.dynamics._adjoint_contacts import (
    Constants,
    adjoint_contact_phases,
    linearised_contact_phases,
)
from physim.dynamics._adjoint_phases import AdjointPhases
from physim.dynamics._advance import REPORT
from physim.dynamics._contact_phases import contact_phases
from physim.dynamics._elimination import elimination_source, integer_table
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
from physim.dynamics._newton_phases import NewtonPhases
from physim.dynamics._phases import CONTACT_NODE, StepPhases
from physim.dynamics._records import record_space
from physim.dynamics._settings import SolverSettings
from physim.dynamics._tangent_phases import TangentPhases
from physim.dynamics._weights import Weights
from solvers.core import Status
from solvers.kernels import KernelPart

_MARKERS = (
    "NODE START LINEARISE COUPLE CLEAR PUSH INCREMENT KEEP ADVANCE RESTART RECHECK FINISH "
    "CENTRAL PULL BEND"
).split()

_PATH_PARAMETERS = (
    *((name, "const V*") for name in ("q", "v", "force", "steps", "num", "kappas")),
    ("stages", "int"),
    ("wanted", "M"),
    *((name, "V*") for name in ("x_out", "limit_out", "rub_out", "impulse_out", "report")),
)

SLOTS_MOST = 16
"""Contacts between links that an environment may push with at once before Newton gives up."""

WAYS_MOST = 12
"""Contacts between links of a block of lanes whose way down the tree is kept in memory."""

TEAM_MOST = 256
"""Most blocks of lanes that one thread serves from one set of queues."""

PATIENCE = 8
"""Rounds for which an environment waits until a block of its kind has gathered."""

_FIELDS = (
    ("cn", CONTACT_NODE),
    ("z", 8),
    ("dz", 8),
    ("affine", 8),
    ("vel", 3),
    ("inv", 3),
    ("gap", 1),
    ("closest", 1),
    ("on", 1),
    ("gain", 9),
    ("rows", 54),
)


def record_offsets(group: ContactGroup) -> tuple[dict[str, int], int]:
    """Where the fields of a candidate's record start, and the record's size."""
    offsets, size = {}, 0
    for name, width in _FIELDS:
        if name == "rows" and not group.is_between_links:
            width = 18
        offsets[name] = size
        size += width
    return offsets, size


def _reals(name: str, values: list[float]) -> str:
    return f"constexpr double {name}[] = {{{', '.join(map(repr, values))}}};"


def _tables(mechanism: Mechanism) -> str:
    """Which links and degrees of freedom each candidate touches."""
    lines = []
    links, first = len(mechanism.tree.links), 0
    for g, group in enumerate(mechanism.groups):
        lines += [
            f"constexpr bool IS_PRUNED{g} = {str(group.is_between_links).lower()};",
            f"constexpr int FIRST{g} = {first};",
            integer_table(f"side_a{g}", [c.link_a for c in group.candidates]),
            integer_table(f"side_b{g}", [c.link_b % (links + 1) for c in group.candidates]),
        ]
        if group.is_between_links:
            lines += _couplings(mechanism, group, g)
        first += group.count
    return "\n".join([*lines, integer_table("pair_of", _pair_places(mechanism))])


def _pair_places(mechanism: Mechanism) -> list[int]:
    """Per contact its place among those between links, -1 on a fixed plane."""
    places: list[int] = []
    between = 0
    for group in mechanism.groups:
        if group.is_between_links:
            places += range(between, between + group.count)
            between += group.count
        else:
            places += [-1] * group.count
    return places


def _records(mechanism: Mechanism) -> str:
    """Declarations of the candidates' records and active lists."""
    lines = record_space([record_offsets(g)[1] * g.count for g in mechanism.groups])
    for g, group in enumerate(mechanism.groups):
        lines.append(f"int list{g}[{group.count}], listed{g} = 0;")
    return "\n".join(lines)


def _couplings(mechanism: Mechanism, group: ContactGroup, g: int) -> list[str]:
    """For each candidate its degrees of freedom: those of a alone, of b alone, of both."""
    tree = mechanism.tree
    dofs: list[int] = []
    starts: list[int] = []
    for item in group.candidates:
        a = set(tree.chain[item.link_a])
        b = set(tree.chain[item.link_b]) if item.link_b >= 0 else set()
        for part in (a - b, b - a, a & b):
            starts.append(len(dofs))
            dofs += sorted(part)
    starts.append(len(dofs))
    return [integer_table(f"chain{g}", dofs), integer_table(f"chain_start{g}", starts)]


def _pointers(
    mechanism: Mechanism,
    group: ContactGroup,
    g: int,
    *,
    is_adjoint: bool = False,
    is_linearised: bool = False,
) -> str:
    """Names by which the blocks of a candidate read its record and its links."""
    offsets, size = record_offsets(group)
    layout = mechanism.layout
    fields = [f"V* const {name} = record{g} + {size} * i + {at};" for name, at in offsets.items()]
    sides = []
    for side in "ab":
        link = f"side_{side}{g}[i]"
        sides += [
            f"V* const {side}0 = pose0 + 12 * {link};",
            f"V* const {side}1 = pose1 + 12 * {link};",
            f"V* const w{side} = wrench + 6 * {link};",
            f"V* const f{side} = push + 6 * {link};",
            f"V* const t{side} = twist + 6 * {link};",
            f"V* const v{side} = twist + 6 * {link};",
            f"V* const p{side} = spatial + 36 * {link};",
        ]
        if is_linearised:
            sides.append(f"V* const n{side} = nodal + 36 * {link};")
        if is_adjoint:
            sides += [
                f"V* const bar_{side}0 = bar_pose0 + 12 * {link};",
                f"V* const bar_{side}1 = bar_pose1 + 12 * {link};",
                f"V* const bar_t{side} = bar_twist + 6 * {link};",
                f"V* const c{side} = cot + 6 * {link};",
            ]
    first = f"{layout.offsets[group.name]} + {group.width} * i"
    numbers = [f"const V* const k = num + {first};"]
    if is_adjoint:
        numbers.append(f"V* const bar_k = bar_num + {first};")
    if is_adjoint or is_linearised:
        numbers += [
            f"const V* const push_ = impulses + 2 * LIMITS + RUBS + 3 * (FIRST{g} + i);",
            f"const double rho_n = rho_normal{g}[i], rho_t = rho_tangent{g}[i];",
        ]
    return "\n".join([*fields, *sides, *numbers])


# What a marker of the loop becomes for one kind of candidate. Names between at-signs are traced
# blocks; "i" is the candidate. The first table runs over candidates that take part, the second
# over all.
_OVER_LISTED = {
    "START": "@START@",
    "LINEARISE": "@LINEARISE@",
    "PUSH": "@PUSH@",
    "INCREMENT": "@INCREMENT@",
    "CENTRAL": "@CENTRAL@",
    "PULL": "@PULL@",
    "BEND": """
V bend[72];
@BEND@
#COUPLE_BENT#
""",
    "CLEAR": "for (int j = 0; j < 8; ++j) affine[j] = V(0.0);",
    "KEEP": "for (int j = 0; j < 8; ++j) affine[j] = dz[j];",
    "ADVANCE": """
const M moves = running & (on[0] > 0.5);
for (int j = 0; j < 8; ++j) z[j] = moves ? z[j] + alpha[0] * dz[j] : z[j];
""",
    "RESTART": """
V kept[8];
for (int j = 0; j < 8; ++j) kept[j] = z[j];
@START@
for (int j = 0; j < 8; ++j) z[j] = chosen ? z[j] : kept[j];
""",
    "COUPLE": """
const int* const dof = chain# + chain_start#[3 * i];
const int only_a = chain_start#[3 * i + 1] - chain_start#[3 * i];
const int either = chain_start#[3 * i + 2] - chain_start#[3 * i];
const int all = chain_start#[3 * i + 3] - chain_start#[3 * i];
V answer[3 * NV];
for (int j = 0; j < all; ++j) {
  const V* const m = motion1 + 6 * dof[j];
  V u[3];
  for (int r = 0; r < 3; ++r) {
    V sum = V(0.0);
    if (j < only_a || j >= either)
      for (int c = 0; c < 6; ++c) sum = sum + rows[6 * r + c] * m[c];
    if (j >= only_a)
      for (int c = 0; c < 6; ++c) sum = sum - rows[18 + 6 * r + c] * m[c];
    u[r] = sum;
  }
  for (int r = 0; r < 3; ++r)
    answer[3 * j + r] = gain[3 * r] * u[0] + gain[3 * r + 1] * u[1] + gain[3 * r + 2] * u[2];
}
for (int d = 1; d < either; ++d)
  for (int j = 0; j < d; ++j) link_pair(matrix, dof[d], dof[j]);
for (int d = 0; d < either; ++d) {
  const V* const m = motion0 + 6 * dof[d];
  V u[3];
  for (int r = 0; r < 3; ++r) {
    V sum = V(0.0);
    for (int c = 0; c < 6; ++c) sum = sum + rows[36 + 6 * r + c] * m[c];
    u[r] = d < only_a ? sum : -sum;
  }
  for (int j = 0; j < all; ++j) {
    V* const entry = matrix.entry + NV * dof[d] + dof[j];
    *entry = *entry + u[0] * answer[3 * j] + u[1] * answer[3 * j + 1] + u[2] * answer[3 * j + 2];
  }
}
""",
}
_COUPLE_BENT = """
const int* const dof = chain# + chain_start#[3 * i];
const int only_a = chain_start#[3 * i + 1] - chain_start#[3 * i];
const int either = chain_start#[3 * i + 2] - chain_start#[3 * i];
const int all = chain_start#[3 * i + 3] - chain_start#[3 * i];
for (int j = 0; j < all; ++j) {
  const V* const m = motion0 + 6 * dof[j];
  V answer[6];
  for (int r = 0; r < 6; ++r) {
    V sum = V(0.0);
    if (j < only_a || j >= either)
      for (int c = 0; c < 6; ++c) sum = sum + bend[6 * r + c] * m[c];
    if (j >= only_a)
      for (int c = 0; c < 6; ++c) sum = sum + bend[36 + 6 * r + c] * m[c];
    answer[r] = sum;
  }
  for (int d = 0; d < either; ++d) {
    const V* const s = motion0 + 6 * dof[d];
    V sum = V(0.0);
    for (int r = 0; r < 6; ++r) sum = sum + s[r] * answer[r];
    V* const entry = rhs + NV * dof[j] + dof[d];
    *entry = d < only_a ? *entry + sum : *entry - sum;
  }
}
"""
_OVER_ALL = {
    "NODE": """
@NODE@
const M near = IS_PRUNED# ? closest[0] < PRUNING * steps[1] : closest[0] == closest[0];
on[0] = near ? V(1.0) : V(0.0);
count = count + 2.0 * on[0];
gap[0] = cn[0];
if (vany(near)) list#[listed#++] = i;
""",
    "RECHECK": """
if (!vany(on[0] < 0.5)) continue;
@GAP@
const M missed = (on[0] < 0.5) & (gap[0] < reach) & (fail < 0.5);
if (!vany(missed)) continue;
bool known = false;
for (int place = 0; place < listed#; ++place) known = known || list#[place] == i;
if (!known) {
  // In order of the candidates: sums must not depend on what other lanes found.
  int place = listed#++;
  for (; place > 0 && list#[place - 1] > i; --place) list#[place] = list#[place - 1];
  list#[place] = i;
}
count = missed ? count + 2.0 : count;
on[0] = missed ? V(1.0) : on[0];
again = missed ? V(1.0) : again;
""",
    "FINISH": """
if (vany(on[0] < 0.5)) {
@GAP@
}
lowest = vmin(lowest, gap[0]);
touching = touching + on[0];
V* const out = impulse_out + (FIRST# + i) * 3;
out[0] = on[0] > 0.5 ? z[0] : V(0.0);
out[1] = on[0] > 0.5 ? z[2] : V(0.0);
out[2] = on[0] > 0.5 ? z[3] : V(0.0);
""",
}
_BETWEEN_LINKS = ("COUPLE", "RECHECK")


def _contact_code(
    mechanism: Mechanism, group: ContactGroup, g: int, what: str, blocks: Mapping[str, str]
) -> str:
    """What one kind of candidate contributes at a marker of the loop."""
    if what in _BETWEEN_LINKS and not group.is_between_links:
        return ""
    pointers = _pointers(
        mechanism, group, g, is_adjoint="PULL" in blocks, is_linearised="BEND" in blocks
    )
    if what in _OVER_LISTED:
        head = f"for (int at = 0; at < listed{g}; ++at) {{\nconst int i = list{g}[at];\n"
        text = _OVER_LISTED[what]
    else:
        head = f"for (int i = 0; i < {group.count}; ++i) {{\n"
        text = _OVER_ALL[what]
    text = text.replace("#COUPLE_BENT#", _COUPLE_BENT if group.is_between_links else "")
    text = text.replace("#", str(g))
    for name, block in blocks.items():
        text = text.replace(f"@{name}@", block)
    return f"{head}{pointers}\n{text}\n}}"


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
    head = [_constants(mechanism, settings), weight_tables(weights), ball_tables(mechanism)]
    if phases.has_couplings:
        head.append(tree_tables(mechanism.tree, phases.eliminated, phases.roots))
        axes = {axis for c in contacts if c.is_between_links for axis in c.axes}
        head.append(axis_tables(structure.moves, sorted(axes)))
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
    path = _filled(mechanism, text, StepPhases(mechanism, zeros).blocks, kinds)
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
    constants = Constants()
    if with_numbers:
        phases = AdjointPhases(mechanism, zeros, weights.joints, is_exact=is_exact)
    else:
        phases = TangentPhases(mechanism, zeros, weights.joints, is_exact=is_exact)
        constants = phases.constants
    options = {"with_numbers": with_numbers, "is_exact": is_exact}
    kinds = [
        adjoint_contact_phases(mechanism, group, constants, **options) for group in mechanism.groups
    ]
    flags = f"constexpr bool WITH_NUMBERS = {str(with_numbers).lower()};\n"
    flags += f"constexpr bool EXACT = {str(is_exact).lower()};\n"
    text = flags + template("adjoint_loop.cpp") + (frame or template("adjoint_single.cpp"))
    filled = _filled(mechanism, text, phases.blocks, kinds)
    head = [_constants(mechanism, settings), weight_tables(weights)]
    return "\n".join([*head, elimination_source(mechanism.tree), filled])


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
        linearised_contact_phases(mechanism, group, phases.constants, is_exact=is_exact)
        for group in mechanism.groups
    ]
    flags = f"constexpr bool EXACT = {str(is_exact).lower()};\n"
    filled = _filled(mechanism, flags + template("jacobian.cpp"), phases.blocks, kinds)
    head = [_constants(mechanism, settings), weight_tables(weights)]
    return "\n".join([*head, elimination_source(mechanism.tree), filled])


def template(name: str) -> str:
    return resources.files("physim.dynamics").joinpath(name).read_text()


def _filled(
    mechanism: Mechanism,
    text: str,
    phases: Mapping[str, str],
    kinds: Sequence[Mapping[str, str]],
) -> str:
    """Put traced phases and loops over candidates into a template."""
    for what in _MARKERS:
        marker = f"@CONTACTS:{what}@"
        if marker in text:
            parts = [
                _contact_code(mechanism, group, g, what, kinds[g])
                for g, group in enumerate(mechanism.groups)
            ]
            text = text.replace(marker, "\n".join(parts))
    text = text.replace("@RECORDS@", _records(mechanism))
    for name, block in phases.items():
        text = text.replace(f"@{name}@", block)
    return text


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
        "STAGES": round(math.log10(settings.soft_rescue / settings.rescue_smoothing)),
        "TEAM_MOST": TEAM_MOST,
        "PATIENCE": PATIENCE,
        "PAIRS": sum(g.count for g in mechanism.groups if g.is_between_links),
        "SLOTS_MOST": SLOTS_MOST,
        "WAYS_MOST": WAYS_MOST,
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
    return "\n".join([*lines, _tables(mechanism)])


def _rest_of_newton(mechanism: Mechanism) -> float:
    """How much smaller the residual before the last step must be where Newton is not quite Newton.

    The tree's elimination leaves out how armature and dampers of a ball joint couple its axes.
    """
    return 1e-2 if any(joint.kind == "ball" for joint in mechanism.tree.joints) else 1.0
