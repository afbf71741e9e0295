"""Opens a model: check the source, compile it, make the records, say what is not honoured."""

from __future__ import annotations

import warnings
from pathlib import Path

from solvers.core import ModelError, PhysimWarning

from ._mjcf import read_compiled
from ._model import Model
from ._mujoco_adapter import compile_model
from ._source import read_source

__all__ = ["load_model"]


def load_model(
    source: str | Path,
    *,
    strict: bool = False,
    root: str | Path | None = None,
    floating_base: bool = False,
    floor: bool = False,
    mesh_directory: str | Path | None = None,
) -> Model:
    """Load an MJCF or URDF model.

    What the file asks for and physim does not honour yet is listed in ``model.warnings``; what of
    it changes the motion is also given as a Python warning.

    Every link of a URDF robot is a body, and every moving joint whose ``<limit>`` gives an effort
    has a motor of the joint's name: its control is the force [N or N m] and ends at the effort.

    Args:
        source: Path of an MJCF or URDF file, or the XML text itself (a string that starts with
            ``<``).
        strict: Raise instead of warning about anything that changes the motion.
        root: Folder in which all referenced files must lie; the model's own folder by default.
        floating_base: Whether the root link of a URDF robot moves freely, by a joint called
            ``floating_base``; else it is fixed to the world.
        floor: Whether to add the plane z = 0, called ``floor``, which URDF cannot say.
        mesh_directory: Folder of the packages that a URDF robot's ``package://`` names mean, or of
            one such package itself; searched before the folders above the file.

    Returns:
        The model.

    Raises:
        ModelError: If the file is missing, broken or hostile, a number is impossible, or ``strict``
            is set and something that changes the motion cannot be honoured. The message names the
            element and what to do.

    Example:
        >>> model = load_model('''<mujoco><worldbody>
        ...   <geom name="floor" type="plane" size="1 1 1"/>
        ...   <body name="ball" pos="0 0 1"><freejoint/><geom size="0.1"/></body>
        ... </worldbody></mujoco>''')
        >>> model
        Model('model': 1 bodies, 1 joints, nq=7, nv=6, nu=0, 2 shapes, 1 pairs, 0 warnings)
        >>> model.body("ball").joints
        (0,)
    """
    checked = read_source(
        source,
        root=root,
        floating_base=floating_base,
        floor=floor,
        mesh_directory=mesh_directory,
    )
    found = checked.urdf.warnings if checked.urdf is not None else ()
    model = read_compiled(compile_model(checked), label=checked.label, found=found)
    changes = [warning for warning in model.warnings if warning.changes_dynamics]
    if strict and changes:
        listing = "\n".join(f"  - {warning}" for warning in changes)
        raise ModelError(
            f"{checked.label} asks for what physim does not honour (strict=True):\n{listing}\n"
            "Change the file, or load it with strict=False to simulate without these.",
            element=changes[0].element,
        )
    for warning in changes:
        warnings.warn(f"{model.name}: {warning}", PhysimWarning, stacklevel=2)
    return model
