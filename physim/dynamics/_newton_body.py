"""Strings the traced phases of Newton's method and the loops over candidates together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from physim.collision import ContactGroup
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._newton_contacts import NODE_SIZE, POINTS_SIZE, REPLY_SIZE
from physim.dynamics._records import record_space
from physim.dynamics._weights import Weights

if TYPE_CHECKING:
    from physim.model.tree import Tree

_Part = tuple[int, int]
"""A shape of the model, and which of its parts."""
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
# NODE lists the candidates that may touch and gives each a slot for its record, PRESS those that
# push in some lane. Between links balls around the shapes tell what is far apart.
_LOOPS = {
    "NODE": (
        "i",
        """
const int slot = listed#;
slot_of#[i] = -1;
@RECORD@
const M named = (push_[0] != 0.0) | (push_[1] != 0.0) | (push_[2] != 0.0);
M near = zero < one;
if (BETWEEN#) {
  near = are_near(balls# + 4 * ball_a#[i], balls# + 4 * ball_b#[i], SEARCH * steps[1]);
  if (!vany(near | named)) continue;
}
@NODE@
near = near & (closest[0] < margin);
on[0] = (named | near | (smooth && !BETWEEN# ? zero < one : zero > one)) ? one : zero;
if (vany(on[0] > 0.5)) {
  slot_of#[i] = slot;
  list#[listed#++] = i;
}
""",
    ),
    "PRESS": (
        "list",
        """
const int slot = slot_of#[i];
@RECORD@
@NORMAL@
const M pushes = (on[0] > 0.5) &
  (smooth ? zero < one
   : (reach[0] > 0.0) | (push_[0] != 0.0) | (push_[1] != 0.0) | (push_[2] != 0.0));
if (!vany(pushes)) continue;
busy#[busied#++] = i;
if (smooth) {
  @SMOOTH_RESPOND@
} else {
  @RESPOND@
}
V own[48];
if (BETWEEN#) {
  if (touch(side_a#[i])) clear(side_a#[i]);
  if (touch(side_b#[i])) clear(side_b#[i]);
}
@CONDENSE@
if (BETWEEN#) {
  pair_rows[pairs] = record# + SIZE# * slot + ROWS#;
  pair_reply[pairs] = reply;
  pair_on[pairs] = vbool(pushes);
  pair_change[pairs] = record# + SIZE# * slot + CHANGE#;
  pair_a[pairs] = side_a#[i];
  pair_b[pairs] = side_b#[i];
  ++pairs;
} else {
  leave_on(side_a#[i], own);
}
""",
    ),
    "INCREMENT": (
        "busy",
        """
const int slot = slot_of#[i];
@RECORD@
@INCREMENT@
""",
    ),
    "RECHECK": (
        "i",
        """
const bool known = slot_of#[i] >= 0;
const int slot = known ? slot_of#[i] : listed#;
// On the central path a contact pushes before it touches: gradients see all that end this near.
const V within = smooth ? margin : zero;
if (!known && BETWEEN#) {
  const V* const a = balls# + 4 * ball_a#[i];
  if (!vany(are_near(a, balls# + 4 * ball_b#[i], vmax(lowest, within)))) continue;
}
@RECORD@
if (!known) {
  on[0] = zero;
  @GAP@
}
const M missed = (on[0] < 0.5) & (gap[0] < within) & (passed > 0.5);
if (vany(missed)) {
  again = missed ? one : again;
  on[0] = missed ? one : on[0];
  if (!known) {
    @NODE@
    slot_of#[i] = slot;
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

_BALLS = """
for (int s = {first}; s < {last}; ++s) {{
  const V* const pose = {pose} + 12 * ball_link{g}[s];
  const V* const k = num + ball_numbers{g}[s];
  V* const ball = balls{g} + 4 * s;
  {block}
}}
"""


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
            f"int slot_of{g}[{group.count}], list{g}[{group.count}], listed{g} = 0;",
            f"int busy{g}[{group.count}], busied{g} = 0;",
            f"V balls{g}[{4 * max(len(_balls(mechanism, group)), 1)}];",
            f"constexpr bool BETWEEN{g} = {str(group.is_between_links).lower()};",
            f"constexpr int SIZE{g} = {record_size(group)};",
            f"constexpr int ROWS{g} = {_PLAIN}, CHANGE{g} = {_PLAIN + 54};",
        ]
    return "\n".join(lines)


def _balls(mechanism: Mechanism, group: ContactGroup) -> dict[_Part, tuple[int, int, int]]:
    """Parts of shapes between links: side, link, and where numbers of the part stand."""
    found: dict[_Part, tuple[int, int, int]] = {}
    if group.is_between_links:
        links, first = len(mechanism.tree.links), mechanism.layout.offsets[group.name]
        for i, item in enumerate(group.candidates):
            at = first + group.width * i
            for side, link in enumerate((item.link_a, item.link_b % (links + 1))):
                part = (item.shapes[side], item.parts[side])
                found.setdefault(part, (side, link, at + side * group.side_width))
    return dict(sorted(found.items(), key=lambda ball: ball[1][0]))


def ball_tables(mechanism: Mechanism) -> str:
    """Where the balls around shapes come from, and which of them each candidate has."""
    lines = []
    for g, group in enumerate(mechanism.groups):
        balls = _balls(mechanism, group)
        order = {part: place for place, part in enumerate(balls)}
        sides = [
            [
                order[item.shapes[side], item.parts[side]] if balls else 0
                for item in group.candidates
            ]
            for side in (0, 1)
        ]
        lines += [
            _integers(f"ball_link{g}", [link for _, link, _ in balls.values()]),
            _integers(f"ball_numbers{g}", [place for _, _, place in balls.values()]),
            _integers(f"ball_a{g}", sides[0]),
            _integers(f"ball_b{g}", sides[1]),
        ]
    return "\n".join(lines)


def tree_tables(tree: Tree, eliminated: Sequence[int], roots: Sequence[int]) -> str:
    """Where each link hangs, and where its elimination stands in memory.

    Args:
        tree: Topology.
        eliminated: Degrees of freedom that are eliminated one by one.
        roots: Links that are eliminated as a whole.
    """
    place = {dof: i for i, dof in enumerate(eliminated)}
    whole = [link in roots for link in range(len(tree.links))]
    return "\n".join(
        [
            f"constexpr int ROOTS = {len(roots)};",
            _integers("parent_of", [link.parent for link in tree.links]),
            _integers("first_dof", [link.dofs[0] if link.dofs else 0 for link in tree.links]),
            _integers(
                "dofs_of",
                [0 if w else len(link.dofs) for w, link in zip(whole, tree.links, strict=True)],
            ),
            _integers(
                "root_place",
                [roots.index(i) if w else -1 for i, w in enumerate(whole)],
            ),
            _integers("kept_place", [place.get(dof, 0) for dof in range(tree.nv)]),
        ]
    )


def axis_tables(moves: Sequence[int], axes: Sequence[int]) -> str:
    """Components of twists, and axes of contacts between links, that are not zero for all."""
    return "\n".join(
        [
            f"constexpr int MOVES = {len(moves)}, AXES = {len(axes)};",
            _integers("move", moves),
            _integers("axis", axes),
        ]
    )


def ball_loop(mechanism: Mechanism, pose: str, kinds: Sequence[Mapping[str, str]]) -> str:
    """Balls around the shapes of all kinds of candidates between links."""
    text = ""
    for g, group in enumerate(mechanism.groups):
        sides = [side for side, _, _ in _balls(mechanism, group).values()]
        second = sides.count(0)
        for name, first, last in (("BALL_A", 0, second), ("BALL_B", second, len(sides))):
            if last > first:
                text += _BALLS.format(first=first, last=last, g=g, pose=pose, block=kinds[g][name])
    return text


def _integers(name: str, values: Sequence[int]) -> str:
    return f"constexpr int {name}[] = {{{', '.join(map(str, values or [0]))}}};"


def _reals(name: str, values: Sequence[float]) -> str:
    return f"constexpr double {name}[] = {{{', '.join(map(repr, values))}}};"


def _record(group: ContactGroup, g: int) -> str:
    """Names by which blocks read the record of a candidate."""
    size, at, lines = record_size(group), 0, []
    fields = _FIELDS + (_COUPLING_FIELDS if group.is_between_links else ())
    for name, width in fields:
        lines.append(f"V* const {name} = record{g} + {size} * slot + {at};")
        at += width
    return "\n".join(lines)


def _sides(mechanism: Mechanism, group: ContactGroup, g: int) -> str:
    """Names by which blocks read the links and numbers of a candidate."""
    lines = []
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
        body = text.replace("@RECORD@", _record(group, g)).replace("#", str(g))
        for name, block in kinds[g].items():
            body = body.replace(f"@{name}@", block)
        before = f"busied{g} = 0;\n" if what == "PRESS" else ""
        parts.append(f"{before}{head}{_sides(mechanism, group, g)}\n{body}\n}}")
    return "\n".join(parts)
