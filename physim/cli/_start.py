"""Where a run starts: the file's pose, lifted on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from solvers.core import SettingsError

if TYPE_CHECKING:
    from physim.model import Model

__all__ = ["lifted"]


def lifted(model: Model, height: float, keyframe: str | None = None) -> Tensor:
    """The file's configuration with all free-standing bodies moved up.

    Args:
        model: The model.
        height: How far [m].
        keyframe: Key frame to take instead of the initial configuration.

    Returns:
        Configuration, shape ``(nq,)``.

    Raises:
        SettingsError: If nothing in the model can be moved up.
        ModelError: If there is no such key frame.
    """
    q = (model.initial_q if keyframe is None else model.keyframe(keyframe).q).clone()
    if not height:
        return q
    is_lifted = False
    for joint in model.joints:
        body = model.bodies[joint.body]
        if body.parent >= 0:
            continue
        if joint.kind == "free":
            q[joint.q_index + 2] += height
            is_lifted = True
        # Planar models stand on a slide along the vertical instead of a free joint.
        elif joint.kind == "slide" and abs(joint.axis[2]) > 0.999:
            q[joint.q_index] += height * joint.axis[2]
            is_lifted = True
    if not is_lifted:
        raise SettingsError(
            f"--height: model {model.name!r} has neither a free joint nor a vertical slide at its "
            "root, so it cannot be lifted; leave --height out"
        )
    return q
