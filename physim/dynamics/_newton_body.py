"""Strings the traced phases of Newton's method and the loops over candidates together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from physim.collision import ContactGroup
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._newton_contacts import NODE_SIZE, POINTS_SIZE, REPLY_SIZE
from physim.dynamics._records import record_space
from physim.dynamics._weights import Weights

_FIELDS = (
    ("node", NODE_SIZE),
    ("at", POINTS_SIZE),
    ("reply", REPLY_SIZE),
    ("gap", 1),
    ("on", 1),
)
_COUPLING_FIELDS = (("rows", 54), ("change", 3))

_PLAIN = sum(width for _, width in _FIELDS)

# What a marker of the loop becomes for one kind of candidate; "i" is the candidate, "#" its kind.
# NODE lists the candidates that may touch, PRESS those that push in some lane.
_LOOPS = {
    "NODE": (
        "i",
        """
const M named = (push_[0] != 0.0) | (push_[1] != 0.0) | (push_[2] != 0.0);
M near = zero < one;
on[0] = zero;
if (BETWEEN#) {
  @BOUND@
  near = bound[0] < SEARCH * steps[1];
  if (!vany(near | named)) continue;
}
@NODE@
near = near & (closest[0] < margin);
on[0] = (named | near | (smooth && !BETWEEN# ? zero < one : zero > one)) ? one : zero;
if (vany(on[0] > 0.5)) list#[listed#++] = i;
""",
    ),
    "PRESS": (
        "list",
        """
@NORMAL@
const M pushes = (on[0] > 0.5) &
  (smooth ? zero < one
   : (reach[0] > 0.0) | (push_[0] != 0.0) | (push_[1] != 0.0) | (push_[2] != 0.0));
if (!vany(pushes)) continue;
busy#[busied#++] = i;
touch(side_a#[i]);
touch(side_b#[i]);
if (smooth) {
  @SMOOTH_RESPOND@
} else {
  @RESPOND@
}
@CONDENSE@
if (BETWEEN#) {
  pair_rows[pairs] = record# + SIZE# * i + ROWS#;
  pair_reply[pairs] = reply;
  pair_on[pairs] = vbool(pushes);
  pair_change[pairs] = record# + SIZE# * i + CHANGE#;
  pair_a[pairs] = side_a#[i];
  pair_b[pairs] = side_b#[i];
  ++pairs;
}
""",
    ),
    "INCREMENT": ("busy", "@INCREMENT@"),
    "RECHECK": (
        "i",
        """
bool known = false;
for (int place = 0; place < listed#; ++place) known = known || list#[place] == i;
if (!known) {
  on[0] = zero;
  if (BETWEEN#) {
    @BOUND_NEXT@
    if (!vany(bound[0] < vmax_number(lowest, 0.0))) continue;
  }
  @GAP@
}
const M missed = (on[0] < 0.5) & (gap[0] < 0.0) & (passed > 0.5);
if (vany(missed)) {
  again = missed ? one : again;
  on[0] = missed ? one : on[0];
  if (!known) {
    @NODE@
    // In order of the candidates: sums must not depend on what other lanes found.
    int place = listed#++;
    for (; place > 0 && list#[place - 1] > i; --place) list#[place] = list#[place - 1];
    list#[place] = i;
  }
}
lowest = vmin(lowest, gap[0]);
""",
    ),
}


def record_size(group: ContactGroup) -> int:
    """Vectors in the record of a candidate."""
    fields = _FIELDS + (_COUPLING_FIELDS if group.is_between_links else ())
    return sum(width for _, width in fields)


def weight_tables(weights: Weights) -> str:
    """Effective masses of the candidates of all kinds."""
    lines = []
    for g, (normal, tangent) in enumerate(weights.contacts):
        lines += [_reals(f"rho_normal{g}", normal), _reals(f"rho_tangent{g}", tangent)]
    return "\n".join(lines)


def newton_records(mechanism: Mechanism) -> str:
    """Declarations of records and lists of all kinds."""
    lines = record_space([record_size(group) * group.count for group in mechanism.groups])
    for g, group in enumerate(mechanism.groups):
        lines += [
            f"int list{g}[{group.count}], listed{g} = 0;",
            f"int busy{g}[{group.count}], busied{g} = 0;",
            f"constexpr bool BETWEEN{g} = {str(group.is_between_links).lower()};",
            f"constexpr int SIZE{g} = {record_size(group)};",
            f"constexpr int ROWS{g} = {_PLAIN}, CHANGE{g} = {_PLAIN + 54};",
        ]
    return "\n".join(lines)


def _reals(name: str, values: Sequence[float]) -> str:
    return f"constexpr double {name}[] = {{{', '.join(map(repr, values))}}};"


def _pointers(mechanism: Mechanism, group: ContactGroup, g: int) -> str:
    size, at, lines = record_size(group), 0, []
    fields = _FIELDS + (_COUPLING_FIELDS if group.is_between_links else ())
    for name, width in fields:
        lines.append(f"V* const {name} = record{g} + {size} * i + {at};")
        at += width
    for side in "ab":
        link = f"side_{side}{g}[i]"
        lines += [
            f"V* const {side}0 = pose0 + 12 * {link};",
            f"V* const {side}1 = pose1 + 12 * {link};",
            f"V* const v{side} = twist + 6 * {link};",
            f"V* const t{side} = twist + 6 * {link};",
            f"V* const load_{side} = load + 6 * {link};",
            f"V* const push_{side} = push + 6 * {link};",
            f"V* const hold_{side} = hold + 36 * {link};",
        ]
    layout = mechanism.layout
    lines += [
        f"const V* const k = num + {layout.offsets[group.name]} + {group.width} * i;",
        f"V* const push_ = impulses + 3 * (FIRST{g} + i);",
        f"const double rho_n = rho_normal{g}[i], rho_t = rho_tangent{g}[i];",
        "const double per_rho_n = 1.0 / rho_n, per_rho_t = 1.0 / rho_t;",
    ]
    return "\n".join(lines)


def contact_loop(mechanism: Mechanism, what: str, kinds: Sequence[Mapping[str, str]]) -> str:
    """What all kinds of candidates do at a marker."""
    parts = []
    for g, group in enumerate(mechanism.groups):
        over, text = _LOOPS[what]
        if over == "i":
            head = f"for (int i = 0; i < {group.count}; ++i) {{\n"
        else:
            length = {"list": f"listed{g}", "busy": f"busied{g}"}[over]
            head = f"for (int place = 0; place < {length}; ++place) {{\n"
            head += f"const int i = {over}{g}[place];\n"
        body = text.replace("#", str(g))
        for name, block in kinds[g].items():
            body = body.replace(f"@{name}@", block)
        before = f"busied{g} = 0;\n" if what == "PRESS" else ""
        parts.append(f"{before}{head}{_pointers(mechanism, group, g)}\n{body}\n}}")
    return "\n".join(parts)
