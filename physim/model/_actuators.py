"""Actuators: MuJoCo's transmissions, gains and biases as ``gain u + bias . (1, length, rate)``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._mujoco_adapter import CompiledModel
from ._records import Actuator, ActuatorKind, Joint, ModelWarning

__all__ = ["read_actuators", "reflected_inertia"]

_COUNT_OF_DOFS = {"free": 6, "ball": 3, "hinge": 1, "slide": 1}
_ON_JOINT = ("joint", "jointinparent")


def read_actuators(
    compiled: CompiledModel, joints: Sequence[Joint], names: Sequence[str]
) -> tuple[list[Actuator], dict[str, NDArray[np.float64]], list[ModelWarning]]:
    """Read all actuators, one record per entry of the control vector.

    Args:
        compiled: The compiled model.
        joints: The model's joints.
        names: Name of each MuJoCo actuator.

    Returns:
        Records; ``gear (nu, 6)``, ``gain (nu,)``, ``bias (nu, 3)`` and the control and force
        bounds; warnings.
    """
    owners, records, warnings = compiled.control_actuator, [], []
    limited, is_off = _is_limited(compiled), _is_off(compiled)
    for control, owner in enumerate(owners):
        siblings = np.flatnonzero(owners == owner)
        name = names[owner] if len(siblings) == 1 else f"{names[owner]}[{control - siblings[0]}]"
        reason = _refusal(compiled, int(owner), joints, controls=len(siblings))
        joint = joints[compiled["actuator_trnid"][owner, 0]] if not reason else None
        dofs = (
            tuple(range(joint.v_index, joint.v_index + _COUNT_OF_DOFS[joint.kind])) if joint else ()
        )
        records.append(
            Actuator(
                name=name,
                index=control,
                kind=_kind(compiled, int(owner)),
                joint=joint.index if joint else -1,
                v_index=joint.v_index if joint else -1,
                dofs=dofs,
                is_control_limited=bool(limited[control]),
                is_force_limited=bool(compiled["actuator_forcelimited"][owner]),
            )
        )
    for owner, name in enumerate(names):
        reason = _refusal(compiled, owner, joints, controls=int((owners == owner).sum()))
        if reason and not is_off[owner]:
            warnings.append(_warning(name, f"no force here, because of {reason}."))
        elif not is_off[owner]:
            warnings += _deviations(compiled, owner, name, joints)
    return records, _numbers(compiled, limited, is_off), warnings


def reflected_inertia(
    compiled: CompiledModel, joints: Sequence[Joint]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Armature and damping that actuators add to the joints they drive.

    Args:
        compiled: The compiled model.
        joints: The model's joints.

    Returns:
        Armature and damping per velocity, each ``(nv,)``: ``gear**2`` times the actuator's own, on
        hinges and slides.
    """
    armature, damping = np.zeros(compiled.sizes["nv"]), np.zeros(compiled.sizes["nv"])
    for owner, transmission in enumerate(compiled.kinds["transmission"]):
        if transmission not in _ON_JOINT:
            continue
        joint = joints[compiled["actuator_trnid"][owner, 0]]
        if joint.kind in ("hinge", "slide"):
            squared = float(compiled["actuator_gear"][owner, 0]) ** 2
            armature[joint.v_index] += squared * float(compiled["actuator_armature"][owner])
            damping[joint.v_index] += squared * float(compiled["actuator_damping"][owner])
    return armature, damping


def _is_limited(compiled: CompiledModel) -> NDArray[np.bool_]:
    limited = np.asarray(compiled["actuator_ctrllimited"], dtype=bool)
    return limited & ("clampctrl" not in compiled.disabled)


def _is_off(compiled: CompiledModel) -> NDArray[np.bool_]:
    """Actuators that the file itself switches off: they make no force in MuJoCo either."""
    if "actuation" in compiled.disabled:
        return np.ones(compiled.sizes["nactuator"], dtype=bool)
    groups = np.asarray(compiled["actuator_group"], dtype=np.int64)
    mask = int(compiled.option["disableactuator"])
    return np.array(
        [0 <= group <= 30 and bool(mask >> int(group) & 1) for group in groups], dtype=bool
    )


def _numbers(
    compiled: CompiledModel, limited: NDArray[np.bool_], is_off: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    owners = compiled.control_actuator
    bias = np.array(compiled["actuator_biasprm"][owners, :3], dtype=np.float64)
    bias[[compiled.kinds["bias"][owner] != "affine" for owner in owners]] = 0.0
    gain = np.array(compiled["actuator_gainprm"][owners, 0], dtype=np.float64)
    gain[is_off[owners]], bias[is_off[owners]] = 0.0, 0.0
    force_limited = np.asarray(compiled["actuator_forcelimited"], dtype=bool)[owners]
    control, force = compiled["actuator_ctrlrange"], compiled["actuator_forcerange"][owners]
    return {
        "gear": np.array(compiled["actuator_gear"][owners], dtype=np.float64),
        "gain": gain,
        "bias": bias,
        "control_lower": np.where(limited, control[:, 0], -np.inf),
        "control_upper": np.where(limited, control[:, 1], np.inf),
        "force_lower": np.where(force_limited, force[:, 0], -np.inf),
        "force_upper": np.where(force_limited, force[:, 1], np.inf),
    }


def _kind(compiled: CompiledModel, owner: int) -> ActuatorKind:
    gain = float(compiled["actuator_gainprm"][owner, 0])
    has_bias = compiled.kinds["bias"][owner] == "affine"
    constant, stiffness, rate = (
        compiled["actuator_biasprm"][owner, :3] if has_bias else (0.0, 0.0, 0.0)
    )
    if compiled.kinds["gain"][owner] not in ("fixed", "affine") or constant != 0:
        return "general"
    if stiffness == 0 and rate == 0:
        return "motor"
    if stiffness == -gain and rate <= 0:
        return "position"
    return "velocity" if stiffness == 0 and rate == -gain else "general"


def _refusal(compiled: CompiledModel, owner: int, joints: Sequence[Joint], *, controls: int) -> str:
    """Why an actuator cannot act at all; empty if it can."""
    transmission = compiled.kinds["transmission"][owner]
    dynamics, gain, bias = (compiled.kinds[key][owner] for key in ("dynamics", "gain", "bias"))
    if transmission not in _ON_JOINT:
        return f"a {transmission} transmission, where physim drives joints only"
    joint = joints[compiled["actuator_trnid"][owner, 0]]
    reasons = {
        f"axes of the parent on a {joint.kind} joint (jointinparent)": (
            transmission == "jointinparent" and joint.kind in ("free", "ball")
        ),
        f"{controls} controls, where physim's actuators take one": controls != 1,
        "muscle dynamics": "muscle" in (dynamics, gain, bias),
        f"a gain of type {gain}": gain not in ("fixed", "affine"),
        f"a bias of type {bias}": bias not in ("none", "affine"),
        f"activation dynamics of type {dynamics}": dynamics
        not in ("none", "filter", "filterexact"),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _deviations(
    compiled: CompiledModel, owner: int, name: str, joints: Sequence[Joint]
) -> list[ModelWarning]:
    """What an actuator that acts does otherwise than written."""
    joint = joints[compiled["actuator_trnid"][owner, 0]]
    reflected = compiled["actuator_armature"][owner] or compiled["actuator_damping"][owner]
    varies = np.any(compiled["actuator_gainprm"][owner, 1:3] != 0)
    follows = compiled.kinds["bias"][owner] == "affine" and np.any(
        compiled["actuator_biasprm"][owner, 1:3] != 0
    )
    messages = {
        "the activation filter is left out; the control acts without delay.": (
            compiled.kinds["dynamics"][owner] != "none"
        ),
        "the gain depends on length or rate; only its constant part is used.": (
            compiled.kinds["gain"][owner] == "affine" and varies
        ),
        f"its feedback of position and velocity is left out on a {joint.kind} joint; its control "
        "acts as that of a motor. Feed back by a policy, or use hinges in series.": (
            joint.kind in ("ball", "free") and follows
        ),
        "the control delay is left out.": compiled["actuator_delay"][owner] > 0,
        "the damping is nonlinear; only its linear coefficient is used.": np.any(
            compiled["actuator_dampingpoly"][owner] != 0
        ),
        f"own armature and damping are left out on a {joint.kind} joint.": (
            joint.kind in ("ball", "free") and reflected
        ),
    }
    return [_warning(name, message) for message, applies in messages.items() if applies]


def _warning(name: str, message: str) -> ModelWarning:
    return ModelWarning(element=f"actuator '{name}'", message=message, changes_dynamics=True)
