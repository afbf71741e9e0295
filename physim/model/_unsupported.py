"""Says what a model file asks for and physim does not honour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._mujoco_adapter import CompiledModel
from ._pairs import Candidate
from ._records import Joint, ModelWarning

__all__ = ["find_unsupported", "merge_warnings"]

_SOLREF, _SOLIMP = (0.02, 1.0), (0.9, 0.95, 0.001, 0.5, 2.0)
_PRIMITIVES = frozenset({"plane", "sphere", "capsule", "box", "ellipsoid", "cylinder"})


def find_unsupported(
    compiled: CompiledModel,
    joints: Sequence[Joint],
    kept: Sequence[Candidate],
    dropped: dict[tuple[str, str], int],
    names: dict[str, tuple[str, ...]],
) -> list[ModelWarning]:
    """List everything but the actuators' own deviations.

    Args:
        compiled: The compiled model.
        joints: The model's joints.
        kept: Candidate pairs that physim simulates.
        dropped: Number of the other pairs per combination of kinds.
        names: Names per kind of element, unnamed ones filled in.

    Returns:
        Warnings and notes, one per element.
    """
    found = [
        *_tendons(compiled, names["tendon"]),
        *_equalities(compiled, names["equality"]),
        *_pairs(kept, dropped),
        *_contact_extras(compiled, kept),
        *_joints(compiled, joints),
        *_globals(compiled, names["body"]),
        *_soft_contact(compiled, joints, kept),
    ]
    return found


def merge_warnings(found: Sequence[ModelWarning]) -> list[ModelWarning]:
    """Say the same thing about several elements once.

    Args:
        found: Warnings, elements written as ``word 'name'``.

    Returns:
        One warning per message and kind of element, in the order found, those that change the
        motion first.
    """
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for warning in found:
        word, _, name = warning.element.partition(" '")
        groups.setdefault(
            (not warning.changes_dynamics, warning.message, word if name else warning.element), []
        ).append(f"'{name}" if name else "")
    merged = []
    for (is_note, message, word), names in sorted(groups.items(), key=lambda item: item[0][0]):
        if len(names) == 1:
            element = f"{word} {names[0]}".rstrip()
        else:
            element = f"{word}s {', '.join(names)}".replace("equalitys", "equalities")
        merged.append(ModelWarning(element=element, message=message, changes_dynamics=not is_note))
    return merged


def _changed(element: str, message: str) -> ModelWarning:
    return ModelWarning(element=element, message=message, changes_dynamics=True)


def _note(element: str, message: str) -> ModelWarning:
    return ModelWarning(element=element, message=message, changes_dynamics=False)


def _tendons(compiled: CompiledModel, names: Sequence[str]) -> Iterator[ModelWarning]:
    no_limit = bool(compiled.disabled & {"limit", "constraint"})
    no_friction = bool(compiled.disabled & {"frictionloss", "constraint"})
    active = {
        "a spring": (compiled["tendon_stiffness"] != 0) & ("spring" not in compiled.disabled),
        "a nonlinear spring": _any(compiled["tendon_stiffnesspoly"])
        & ("spring" not in compiled.disabled),
        "a damper": (compiled["tendon_damping"] != 0) & ("damper" not in compiled.disabled),
        "a nonlinear damper": _any(compiled["tendon_dampingpoly"])
        & ("damper" not in compiled.disabled),
        "friction": (compiled["tendon_frictionloss"] != 0) & (not no_friction),
        "a length limit": (compiled["tendon_limited"] != 0) & (not no_limit),
        "armature": compiled["tendon_armature"] != 0,
        "an actuator force limit": compiled["tendon_actfrclimited"] != 0,
    }
    for tendon, name in enumerate(names):
        effects = [effect for effect, flags in active.items() if flags[tendon]]
        if effects:
            yield _changed(f"tendon '{name}'", f"left out, and with it {', '.join(effects)}.")
        else:
            yield _note(
                f"tendon '{name}'", "left out; no spring, damper, friction or limit hangs on it."
            )


def _equalities(compiled: CompiledModel, names: Sequence[str]) -> Iterator[ModelWarning]:
    if compiled.disabled & {"equality", "constraint"}:
        return
    for index, (name, kind) in enumerate(zip(names, compiled.kinds["equality"], strict=True)):
        if compiled["eq_active0"][index]:
            yield _changed(f"equality '{name}'", f"the {kind} constraint is left out.")
        else:
            yield _note(
                f"equality '{name}'", f"the {kind} constraint, inactive in the file, is left out."
            )


def _pairs(
    kept: Sequence[Candidate], dropped: dict[tuple[str, str], int]
) -> Iterator[ModelWarning]:
    for first, second in sorted(dropped):
        count = dropped[first, second]
        other = {first, second} - _PRIMITIVES
        advice = (
            f" Replace the {min(other)} by primitives."
            if other
            else " Replace one by spheres or capsules."
        )
        text = "pair of shapes passes" if count == 1 else "pairs of shapes pass"
        yield _changed(f"pairs {first}-{second}", f"{count} {text} through each other.{advice}")
    high = sum(candidate.dimension > 3 for candidate in kept)
    if high:
        yield _changed(
            "contact condim",
            f"torsional and rolling friction is left out (pairs: {high}); sliding friction acts.",
        )
    skewed = sum(not candidate.is_isotropic for candidate in kept)
    if skewed:
        yield _changed(
            "contact friction",
            f"friction is taken to be isotropic (explicit pairs: {skewed}); the first value acts.",
        )


def _contact_extras(compiled: CompiledModel, kept: Sequence[Candidate]) -> Iterator[ModelWarning]:
    touching = sorted({geom for candidate in kept for geom in (candidate.geom_a, candidate.geom_b)})
    if np.any(compiled["geom_adhesion"][touching] != 0) or (
        kept and np.any(compiled["pair_adhesion"] != 0)
    ):
        yield _changed("contact adhesion", "adhesive contact forces are left out.")
    if np.any(compiled["geom_surfacevel"][touching] != 0):
        yield _changed("geom surfacevel", "moving surfaces (conveyors) are taken to be at rest.")
    if kept and "override" in compiled.enabled:
        yield _changed(
            "option override",
            "the global contact override is left out; each shape keeps its own numbers.",
        )


def _joints(compiled: CompiledModel, joints: Sequence[Joint]) -> Iterator[ModelWarning]:
    no_limit = bool(compiled.disabled & {"limit", "constraint"})
    driven = {
        int(compiled["actuator_trnid"][k, 0])
        for k, transmission in enumerate(compiled.kinds["transmission"])
        if transmission in ("joint", "jointinparent")
    }
    springs, dampers = "spring" not in compiled.disabled, "damper" not in compiled.disabled
    for joint in joints:
        k, element = joint.index, f"joint '{joint.name}'"
        if joint.kind in ("ball", "free") and compiled["jnt_limited"][k] and not no_limit:
            yield _changed(element, f"the limit of a {joint.kind} joint is left out.")
        if joint.kind in ("ball", "free"):
            rubs = compiled["dof_frictionloss"][np.asarray(compiled["dof_jntid"]) == k]
            if springs and compiled["jnt_stiffness"][k] != 0:
                yield _changed(element, f"the spring of a {joint.kind} joint is left out.")
            if np.any(rubs != 0) and not compiled.disabled & {"frictionloss", "constraint"}:
                yield _changed(element, f"the dry friction of a {joint.kind} joint is left out.")
        if springs and compiled["jnt_has_polynomial"][k]:
            yield _changed(element, "the spring is nonlinear; only its linear coefficient is used.")
        if springs and compiled["jnt_springyield"][k] > 0:
            yield _changed(element, "the spring yields plastically; here it stays elastic.")
        if dampers and np.any(
            compiled["dof_has_polynomial"][np.asarray(compiled["dof_jntid"]) == k]
        ):
            yield _changed(element, "the damper is nonlinear; only its linear coefficient is used.")
        if (
            k in driven
            and compiled["jnt_actfrclimited"][k]
            and np.all(np.isfinite(compiled["jnt_actfrcrange"][k]))
        ):
            yield _changed(
                element, "the limit of the total actuator force (actuatorfrcrange) is left out."
            )


def _globals(compiled: CompiledModel, bodies: Sequence[str]) -> Iterator[ModelWarning]:
    if np.any(compiled["body_gravcomp"] != 0) and "gravity" not in compiled.disabled:
        named = ", ".join(bodies[int(k)] for k in np.flatnonzero(compiled["body_gravcomp"])[:5])
        yield _changed("body gravcomp", f"gravity compensation is left out (bodies {named}).")
    fluid = [key for key in ("density", "viscosity") if compiled.option[key] > 0]
    if fluid and compiled.sizes["nv"]:
        yield _changed(
            "option " + " and ".join(fluid), "forces of the surrounding fluid are left out."
        )
    asleep = int(compiled["tree_asleep"].sum()) if "sleep" in compiled.enabled else 0
    if asleep:
        yield _changed("option sleep", f"what the file puts to sleep is awake here ({asleep}).")
    if compiled.sizes["nflex"]:
        yield _changed(
            "flex", f"deformable objects are left out (flexes: {compiled.sizes['nflex']})."
        )
    if compiled.sizes["nmocap"]:
        yield _note(
            "mocap",
            f"bodies moved by motion capture stay where the file puts them "
            f"({compiled.sizes['nmocap']}).",
        )
    if compiled.sizes["nskin"]:
        yield _note(
            "skin", f"skins, which are only drawn, are left out ({compiled.sizes['nskin']})."
        )
    visual = sum(kind not in _PRIMITIVES for kind in compiled.kinds["shape"])
    if visual:
        yield _note(
            "mesh", f"meshes, height and distance fields are not among the shapes ({visual})."
        )
    for message in dict.fromkeys(compiled.notes):
        yield _note("compiler", f"MuJoCo: {message}")


def _soft_contact(
    compiled: CompiledModel, joints: Sequence[Joint], kept: Sequence[Candidate]
) -> Iterator[ModelWarning]:
    touching = sorted({geom for candidate in kept for geom in (candidate.geom_a, candidate.geom_b)})
    limited = [joint.index for joint in joints if joint.is_limited]
    has_friction = not compiled.disabled & {"frictionloss", "constraint"}
    rubbing = np.flatnonzero(compiled["dof_frictionloss"]).tolist() if has_friction else []
    places = [("geom", touching), ("jnt", limited), ("dof", rubbing)]
    if any(candidate.explicit for candidate in kept):
        places.append(("pair", list(range(compiled.sizes["npair"]))))
    if any(_is_soft(compiled, prefix, where) for prefix, where in places):
        yield _note(
            "solref, solimp",
            "softness of contacts, limits and joint friction is left out: they are hard here.",
        )
    margin = max((candidate.margin for candidate in kept), default=0.0)
    if any(candidate.margin != 0 for candidate in kept):
        yield _note(
            "geom margin",
            f"shapes touch at distance zero; MuJoCo keeps them up to {1e3 * margin:.3g} mm "
            "apart by their margins.",
        )
    if limited and np.any(compiled["jnt_margin"][limited] != 0):
        yield _note("joint margin", "limits act at the limit itself, not a margin before it.")


def _is_soft(compiled: CompiledModel, prefix: str, where: Sequence[int]) -> bool:
    rows = list(where)
    solref, solimp = compiled[f"{prefix}_solref"][rows], compiled[f"{prefix}_solimp"][rows]
    if len(solref) == 0:
        return False
    return bool(np.any(solref != np.array(_SOLREF)) or np.any(solimp != np.array(_SOLIMP)))


def _any(table: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.any(np.asarray(table) != 0, axis=1))
