"""Which shapes may touch: MuJoCo's rules for candidate pairs, applied once at load time.

A pair of shapes is a candidate if the contact bits of one meet the affinity bits of the other,
their bodies are not welded together, not both at rest forever, not parent and child (the world and
what is welded to it excepted), and not excluded by name. Pairs that the file lists itself pass all
these filters, and are left out if their shapes cannot move against each other, since such contact
has no effect. Source: MuJoCo documentation, "Computation", section "Collision detection:
selection".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._mujoco_adapter import CompiledModel

__all__ = ["Candidate", "find_candidates", "is_supported", "moving_bodies", "split_supported"]

_ROUND = frozenset({"sphere", "capsule"})
_ON_PLANE = frozenset({"sphere", "capsule", "box", "ellipsoid", "cylinder"})
# Neither do these pairs touch in MuJoCo.
_NEVER = frozenset({"plane", "hfield"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Two geoms that may touch, by MuJoCo's indices.

    Attributes:
        geom_a: The plane if there is one, else the lower index.
        geom_b: The other geom.
        explicit: Whether the file lists the pair itself.
        has_own_friction: Whether ``friction`` differs from the rule "larger of the two".
        friction: Sliding coefficient; 0 for frictionless contact.
        is_isotropic: Whether both tangential coefficients agree.
        dimension: MuJoCo's ``condim``: 1 without friction, 3 sliding, 4 torsional, 6 rolling.
        margin: Distance [m] at which MuJoCo's soft contact would begin to push.
    """

    geom_a: int
    geom_b: int
    explicit: bool
    has_own_friction: bool
    friction: float
    is_isotropic: bool
    dimension: int
    margin: float


def is_supported(kind_a: str, kind_b: str) -> bool:
    """Whether physim has a contact law for two kinds of shape.

    Args:
        kind_a: Kind of one shape.
        kind_b: Kind of the other.

    Returns:
        True for a plane with any convex primitive, for spheres and capsules among themselves and
        with boxes, and for spheres with cylinders.
    """
    kinds = {kind_a, kind_b}
    if "plane" in kinds:
        return (kind_b if kind_a == "plane" else kind_a) in _ON_PLANE
    return (kinds <= _ROUND | {"box"} and kinds != {"box"}) or kinds == {"sphere", "cylinder"}


def split_supported(
    candidates: list[Candidate], kinds: tuple[str, ...]
) -> tuple[list[Candidate], dict[tuple[str, str], int]]:
    """Separate the pairs that physim can simulate from the rest.

    Args:
        candidates: All candidate pairs.
        kinds: Kind of each geom.

    Returns:
        The supported pairs in order, and the number of the others per combination of kinds (in
        alphabetical order).
    """
    kept: list[Candidate] = []
    dropped: Counter[tuple[str, str]] = Counter()
    for candidate in candidates:
        kind_a, kind_b = kinds[candidate.geom_a], kinds[candidate.geom_b]
        if is_supported(kind_a, kind_b):
            kept.append(candidate)
        else:
            first, second = sorted((kind_a, kind_b))
            dropped[first, second] += 1
    return kept, dict(dropped)


def find_candidates(compiled: CompiledModel) -> list[Candidate]:
    """All pairs of geoms that MuJoCo would test, supported here or not.

    Args:
        compiled: The compiled model.

    Returns:
        Explicit pairs in the file's order, then the filtered ones in index order; empty if contact
        is switched off.
    """
    if compiled.disabled & {"contact", "constraint"}:
        return []
    kinds = compiled.kinds["shape"]
    movable = _movable(compiled)
    explicit = [
        _ordered(
            kinds,
            int(compiled["pair_geom1"][k]),
            int(compiled["pair_geom2"][k]),
            explicit=True,
            has_own_friction=True,
            friction=0.0
            if compiled["pair_dim"][k] == 1
            else float(compiled["pair_friction"][k, 0]),
            is_isotropic=bool(
                compiled["pair_dim"][k] == 1
                or compiled["pair_friction"][k, 0] == compiled["pair_friction"][k, 1]
            ),
            dimension=int(compiled["pair_dim"][k]),
            margin=float(compiled["pair_margin"][k]),
        )
        for k in range(compiled.sizes["npair"])
        if movable[compiled["pair_geom1"][k], compiled["pair_geom2"][k]]
    ]
    taken = {(candidate.geom_a, candidate.geom_b) for candidate in explicit}
    allowed = np.argwhere(_allowed(compiled) & movable)
    filtered = [_dynamic(compiled, int(a), int(b)) for a, b in allowed]
    return explicit + [
        candidate for candidate in filtered if (candidate.geom_a, candidate.geom_b) not in taken
    ]


def moving_bodies(compiled: CompiledModel) -> NDArray[np.bool_]:
    """Whether each body, the world included, has a joint at or above it.

    Args:
        compiled: The compiled model.

    Returns:
        Flags, shape ``(nbody,)``.
    """
    moving = np.asarray(compiled["body_jntnum"]) > 0
    for body in range(1, len(moving)):
        moving[body] |= moving[compiled["body_parentid"][body]]
    return moving


def _movable(compiled: CompiledModel) -> NDArray[np.bool_]:
    """Table of geom pairs that joints move against each other, shape ``(ngeom, ngeom)``."""
    body = np.asarray(compiled["geom_bodyid"], dtype=np.int64)
    group = np.asarray(compiled["body_weldid"], dtype=np.int64)[body]
    moving = moving_bodies(compiled)[body]
    return np.asarray((group[:, None] != group[None, :]) & (moving[:, None] | moving[None, :]))


def _allowed(compiled: CompiledModel) -> NDArray[np.bool_]:
    """Upper triangular table of geom pairs that pass every other filter."""
    body = np.asarray(compiled["geom_bodyid"], dtype=np.int64)
    contype = np.asarray(compiled["geom_contype"], dtype=np.int64)
    affinity = np.asarray(compiled["geom_conaffinity"], dtype=np.int64)
    bits = (contype[:, None] & affinity[None, :]) | (contype[None, :] & affinity[:, None])
    weld = np.asarray(compiled["body_weldid"], dtype=np.int64)
    weld_parent = weld[np.asarray(compiled["body_parentid"])[weld]]
    group, group_parent = weld[body], weld_parent[body]

    allowed = bits != 0
    if "filterparent" not in compiled.disabled:
        related = (group[:, None] == group_parent[None, :]) | (
            group_parent[:, None] == group[None, :]
        )
        allowed &= ~(related & (group[:, None] != 0) & (group[None, :] != 0))
    signature = (np.minimum(body[:, None], body[None, :]) << 16) + np.maximum(
        body[:, None], body[None, :]
    )
    allowed &= ~np.isin(signature, np.asarray(compiled["exclude_signature"], dtype=np.int64))
    flat = np.array([kind in _NEVER for kind in compiled.kinds["shape"]], dtype=bool)
    allowed &= ~(flat[:, None] & flat[None, :])
    return np.asarray(np.triu(allowed, 1))


def _dynamic(compiled: CompiledModel, a: int, b: int) -> Candidate:
    friction, priority, condim = (
        compiled["geom_friction"],
        compiled["geom_priority"],
        compiled["geom_condim"],
    )
    larger = float(max(friction[a, 0], friction[b, 0]))
    if priority[a] == priority[b]:
        dimension, coefficient = int(max(condim[a], condim[b])), larger
    else:
        leader = a if priority[a] > priority[b] else b
        dimension, coefficient = int(condim[leader]), float(friction[leader, 0])
    coefficient = 0.0 if dimension == 1 else coefficient
    return _ordered(
        compiled.kinds["shape"],
        a,
        b,
        explicit=False,
        has_own_friction=dimension == 1 or priority[a] != priority[b],
        friction=coefficient,
        is_isotropic=True,
        dimension=dimension,
        margin=float(compiled["geom_margin"][a] + compiled["geom_margin"][b]),
    )


def _ordered(
    kinds: tuple[str, ...],
    a: int,
    b: int,
    *,
    explicit: bool,
    has_own_friction: bool,
    friction: float,
    is_isotropic: bool,
    dimension: int,
    margin: float,
) -> Candidate:
    first, second = sorted((a, b), key=lambda geom: (kinds[geom] != "plane", geom))
    return Candidate(
        geom_a=first,
        geom_b=second,
        explicit=explicit,
        has_own_friction=bool(has_own_friction),
        friction=friction,
        is_isotropic=is_isotropic,
        dimension=dimension,
        margin=margin,
    )
