"""The only place that calls MuJoCo: compiles MJCF or URDF and copies the result out.

The copy looks the same for MuJoCo 3 and 4.

MuJoCo's compiler applies defaults, angle units, ``fromto``, masses from shapes and the rest of
MJCF's rules; what it compiled is therefore the truth, and no other module of this room looks at XML
for numbers.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import ModelError

if TYPE_CHECKING:
    from ._source import ModelSource
    from ._urdf import Urdf

__all__ = ["CompiledModel", "compile_model", "mujoco_version"]

# Copied as they are: size that counts the rows, width of a row (0: a vector), names. An array that
# an older version lacks is filled with zeros of that shape.
_ARRAYS: tuple[tuple[str, int, str], ...] = (
    ("nbody", 0, "body_parentid body_weldid body_mass body_jntadr body_jntnum body_gravcomp"),
    ("nbody", 3, "body_pos body_ipos body_inertia"),
    ("nbody", 4, "body_quat body_iquat"),
    ("njnt", 0, "jnt_bodyid jnt_qposadr jnt_dofadr jnt_limited jnt_margin jnt_actfrclimited"),
    ("njnt", 0, "jnt_springyield"),
    ("njnt", 2, "jnt_range jnt_actfrcrange jnt_solref"),
    ("njnt", 3, "jnt_axis jnt_pos"),
    ("njnt", 5, "jnt_solimp"),
    ("nv", 0, "dof_armature dof_frictionloss dof_jntid"),
    ("nv", 2, "dof_solref"),
    ("nv", 5, "dof_solimp"),
    ("ngeom", 0, "geom_bodyid geom_contype geom_conaffinity geom_condim geom_priority geom_margin"),
    ("ngeom", 0, "geom_gap geom_adhesion"),
    ("ngeom", 2, "geom_solref"),
    ("ngeom", 3, "geom_size geom_pos geom_friction"),
    ("ngeom", 4, "geom_quat geom_rgba"),
    ("ngeom", 5, "geom_solimp"),
    ("ngeom", 6, "geom_surfacevel"),
    ("npair", 0, "pair_geom1 pair_geom2 pair_dim pair_margin pair_gap pair_adhesion"),
    ("npair", 2, "pair_solref"),
    ("npair", 5, "pair_friction pair_solimp"),
    ("nexclude", 0, "exclude_signature"),
    ("ntendon", 0, "tendon_limited tendon_frictionloss tendon_armature tendon_actfrclimited"),
    ("ntendon", 0, "tendon_stiffness tendon_damping"),
    ("ntendon", 1, "tendon_stiffnesspoly tendon_dampingpoly"),
    ("neq", 0, "eq_active0"),
    ("nactuator", 0, "actuator_forcelimited actuator_group actuator_delay actuator_damping"),
    ("nactuator", 0, "actuator_armature"),
    ("nactuator", 1, "actuator_dampingpoly"),
    ("nactuator", 2, "actuator_trnid actuator_forcerange"),
    ("nactuator", 6, "actuator_gear"),
    ("nactuator", 10, "actuator_gainprm actuator_biasprm"),
    ("nu", 0, "actuator_ctrllimited"),
    ("nu", 2, "actuator_ctrlrange"),
    ("nsite", 0, "site_bodyid"),
    ("nsite", 3, "site_pos site_size"),
    ("nsite", 4, "site_quat"),
    ("ncam", 0, "cam_bodyid"),
    ("ncam", 3, "cam_pos"),
    ("ncam", 4, "cam_quat"),
    ("nsensor", 0, "sensor_objid sensor_refid sensor_dim sensor_cutoff sensor_delay"),
    ("nsensor", 2, "sensor_interval"),
    ("nkey", 0, "key_time key_qpos key_qvel key_ctrl"),
    ("nq", 0, "qpos0 qpos_spring"),
    ("ntree", 0, "tree_sleep_policy"),
)
_KINDS = {
    "joint": ("mjtJoint", "jnt_type"),
    "shape": ("mjtGeom", "geom_type"),
    "equality": ("mjtEq", "eq_type"),
    "transmission": ("mjtTrn", "actuator_trntype"),
    "dynamics": ("mjtDyn", "actuator_dyntype"),
    "gain": ("mjtGain", "actuator_gaintype"),
    "bias": ("mjtBias", "actuator_biastype"),
    "site": ("mjtGeom", "site_type"),
    "camera": ("mjtCamLight", "cam_mode"),
    "sensor": ("mjtSensor", "sensor_type"),
    "sensor object": ("mjtObj", "sensor_objtype"),
    "sensor reference": ("mjtObj", "sensor_reftype"),
    "sensor data": ("mjtDataType", "sensor_datatype"),
}
_NAMED = {
    "body": ("mjOBJ_BODY", "nbody"),
    "joint": ("mjOBJ_JOINT", "njnt"),
    "shape": ("mjOBJ_GEOM", "ngeom"),
    "actuator": ("mjOBJ_ACTUATOR", "nactuator"),
    "tendon": ("mjOBJ_TENDON", "ntendon"),
    "equality": ("mjOBJ_EQUALITY", "neq"),
    "keyframe": ("mjOBJ_KEY", "nkey"),
    "site": ("mjOBJ_SITE", "nsite"),
    "camera": ("mjOBJ_CAMERA", "ncam"),
    "sensor": ("mjOBJ_SENSOR", "nsensor"),
}
_OPTIONS = ("timestep", "gravity", "magnetic", "density", "viscosity", "disableactuator")
_SIZES = (
    "nq nv nu nbody njnt ngeom nsite ncam npair nexclude ntendon neq nkey nmocap nsensor nflex "
    "nskin ntree"
).split()
_ADVICE = {
    "mjMINVAL": "Give the body a shape with mass or an <inertial> with positive mass and inertia.",
    "A + B >= C": "Correct diaginertia or fullinertia, or set <compiler balanceinertia='true'/>.",
    "positive eigenvalues": "Correct fullinertia: it must be positive definite.",
    "range[0]": "Give the lower bound first.",
    "Schema violation": "Check the spelling of the element or attribute and where it stands.",
    "plane only allowed": "Attach the plane to the world, or use a box.",
    "no decoder found": "Convert the mesh to .stl or .obj.",
    "Error opening file": "Check the name, and meshdir or texturedir of <compiler>.",
    "axis too small": "Give the axis a length; it need not be 1.",
    "nesting is too deep": "Nest fewer elements.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """What MuJoCo compiled, as read-only numpy arrays under MuJoCo's own names.

    Attributes:
        name: Name of the model, empty if the file gives none.
        sizes: ``nq``, ``nv``, ``nbody`` and the other counts.
        arrays: Arrays by MuJoCo's names, absent ones of older versions as zeros; ``jnt_stiffness``
            and ``dof_damping`` hold the linear coefficient, ``jnt_has_polynomial``,
            ``dof_has_polynomial`` say where there are higher ones, ``tree_asleep`` what the file
            puts to sleep.
        kinds: Kinds as lower-case words, per ``"joint"``, ``"shape"``, ``"equality"``,
            ``"transmission"``, ``"dynamics"``, ``"gain"``, ``"bias"``, ``"site"``, ``"camera"``,
            ``"sensor"``, ``"sensor object"``, ``"sensor reference"``, ``"sensor data"``.
        names: Names per kind of element, empty where the file gives none.
        control_actuator: Actuator of each control, shape ``(nu,)``.
        option: Global numbers: ``timestep``, ``gravity``, ``density``, ``viscosity``,
            ``disableactuator``, ``magnetic``.
        disabled: Features that the file switches off, such as ``"contact"``.
        enabled: Optional features that the file switches on.
        ranges_off: Names of joints and actuator ranges that the file marks unlimited although it
            gives a range.
        notes: What MuJoCo's compiler warned about.
    """

    name: str
    sizes: Mapping[str, int]
    arrays: Mapping[str, NDArray[Any]]
    kinds: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[str, ...]]
    control_actuator: NDArray[np.int64]
    option: Mapping[str, NDArray[np.float64]]
    disabled: frozenset[str]
    enabled: frozenset[str]
    ranges_off: frozenset[tuple[str, int]]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def _mujoco() -> Any:
    return importlib.import_module("mujoco")


def mujoco_version() -> str:
    """Version of the installed MuJoCo.

    Returns:
        The version, such as ``"4.0.0"``.
    """
    return str(_mujoco().__version__)


def compile_model(source: ModelSource) -> CompiledModel:
    """Compile a checked source.

    Args:
        source: Text or file that passed :func:`physim.model._source.read_source`.

    Returns:
        The compiled arrays.

    Raises:
        ModelError: With MuJoCo's message, which names element and line, and advice for the frequent
            ones.
    """
    mujoco = _mujoco()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if source.path is None:
                spec = mujoco.MjSpec.from_string(source.text)
            else:
                spec = mujoco.MjSpec.from_file(str(source.path))
            if source.urdf is not None:
                _complete(mujoco, spec, source.urdf)
            compiled = spec.compile()
        except (ValueError, mujoco.FatalError, mujoco.UnexpectedError) as error:
            message = " ".join(str(error).split())
            advice = next(
                (text for key, text in _ADVICE.items() if key in message),
                "Correct the file at that element.",
            )
            raise ModelError(f"{source.label} does not compile: {message}. {advice}") from error
    return _copy(mujoco, spec, compiled, tuple(str(item.message) for item in caught))


def _complete(mujoco: Any, spec: Any, robot: Urdf) -> None:
    """Add what URDF cannot say: a floor, a free base, and motors."""
    limited = mujoco.mjtLimited
    if robot.has_floor:
        plane = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(name="floor", type=plane, size=[5.0, 5.0, 1.0])
    if robot.base:
        spec.body(robot.base).add_freejoint(name="floating_base")
    for name, effort in robot.motors:
        is_bounded = np.isfinite(effort)
        # The range of the control bounds the force already.
        spec.joint(name).actfrclimited = int(limited.mjLIMITED_FALSE)
        spec.add_actuator(
            name=name,
            target=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrllimited=int(limited.mjLIMITED_TRUE if is_bounded else limited.mjLIMITED_FALSE),
            ctrlrange=[-effort, effort] if is_bounded else [0.0, 0.0],
        )


def _copy(mujoco: Any, spec: Any, compiled: Any, notes: tuple[str, ...]) -> CompiledModel:
    sizes = {key: int(getattr(compiled, key, 0)) for key in _SIZES}
    # Since version 3.13 an actuator may take several controls; before, nu counted actuators.
    sizes["nactuator"] = int(getattr(compiled, "nactuator", sizes["nu"]))
    arrays = {
        key: _array(compiled, key, sizes[count], width)
        for count, width, keys in _ARRAYS
        for key in keys.split()
    }
    for key, polynomial, flag, count in (
        ("jnt_stiffness", "jnt_stiffnesspoly", "jnt_has_polynomial", "njnt"),
        ("dof_damping", "dof_dampingpoly", "dof_has_polynomial", "nv"),
    ):
        linear, more = _linear(getattr(compiled, key))
        higher = np.asarray(getattr(compiled, polynomial, np.zeros((sizes[count], 1))))
        arrays[key], arrays[flag] = linear, more | np.any(higher != 0, axis=1)
    asleep = getattr(getattr(mujoco, "mjtSleepPolicy", None), "mjSLEEP_INIT", -1)
    arrays["tree_asleep"] = arrays.pop("tree_sleep_policy") == int(asleep)
    for array in arrays.values():
        array.flags.writeable = False
    counts = np.asarray(
        getattr(compiled, "actuator_ctrlnum", np.ones(sizes["nactuator"], dtype=int))
    )
    name = str(spec.modelname)
    return CompiledModel(
        name="" if name == "MuJoCo Model" else name,
        sizes=sizes,
        arrays=arrays,
        kinds={
            key: _words(getattr(mujoco, enum), getattr(compiled, field))
            for key, (enum, field) in _KINDS.items()
        },
        names={
            key: tuple(
                mujoco.mj_id2name(compiled, getattr(mujoco.mjtObj, kind), i) or ""
                for i in range(sizes[count])
            )
            for key, (kind, count) in _NAMED.items()
        },
        control_actuator=np.repeat(np.arange(sizes["nactuator"]), counts),
        option={key: np.array(getattr(compiled.opt, key), dtype=np.float64) for key in _OPTIONS},
        disabled=_flags(mujoco.mjtDisableBit, int(compiled.opt.disableflags), "mjDSBL_"),
        enabled=_flags(mujoco.mjtEnableBit, int(compiled.opt.enableflags), "mjENBL_"),
        ranges_off=_ranges_off(mujoco, spec),
        notes=notes,
    )


def _array(compiled: Any, key: str, count: int, width: int) -> NDArray[Any]:
    value = getattr(compiled, key, None)
    if value is None:
        return np.zeros((count, width) if width else count)
    return np.array(value)


def _linear(value: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The linear coefficients, and where there are higher ones if a version stores rows."""
    table = np.array(value, dtype=np.float64)
    if table.ndim == 1:
        return table, np.zeros(len(table), dtype=bool)
    return table[:, 0].copy(), np.any(table[:, 1:] != 0, axis=1)


def _words(enum: Any, values: Any) -> tuple[str, ...]:
    words = {
        int(member): name.split("_", 1)[1].lower()
        for name, member in enum.__members__.items()
        if "_" in name
    }
    return tuple(words.get(int(value), f"kind {int(value)}") for value in np.ravel(values))


def _flags(enum: Any, value: int, prefix: str) -> frozenset[str]:
    words = {
        name.removeprefix(prefix).lower()
        for name, member in enum.__members__.items()
        if name.startswith(prefix) and value & int(member)
    }
    # Up to version 3.3 one flag covered both passive forces.
    return frozenset(words | {"spring", "damper"} if "passive" in words else words)


def _ranges_off(mujoco: Any, spec: Any) -> frozenset[tuple[str, int]]:
    off = int(mujoco.mjtLimited.mjLIMITED_FALSE)
    found = {("joint", int(joint.id)) for joint in spec.joints if int(joint.limited) == off}
    for actuator in spec.actuators:
        if int(actuator.ctrllimited) == off:
            found.add(("control", int(actuator.id)))
        if int(actuator.forcelimited) == off:
            found.add(("force", int(actuator.id)))
    return frozenset(found)
