"""Loops over candidates around traced phases: on the central path and in derivatives of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from physim.collision import ContactGroup
from physim.dynamics._elimination import integer_table
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import CONTACT_NODE
from physim.dynamics._records import record_space

_MARKERS = (
    "NODE START LINEARISE COUPLE CLEAR PUSH INCREMENT KEEP ADVANCE RESTART RECHECK FINISH "
    "CENTRAL PULL BEND"
).split()

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


def candidate_tables(mechanism: Mechanism) -> str:
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


def filled(
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
