"""Writes docs/models.md: which public models load and what of each is not honoured.

Run from the repository root, with gymnasium and dm_control installed::

    python docs/list_models.py
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

from physim.model import Model, load_model

SOURCES = (("gymnasium", "envs/mujoco/assets"), ("dm_control", "suite"))
HEADER = """# Models

What loads, and what of each file physim does not honour yet. Made by `python docs/list_models.py`;
see `model.warnings` for the same of your own model, and `load_model(..., strict=True)` to refuse
whatever changes the motion.

- **pairs**: shapes that may touch.
- **changes**: warnings about something that changes the motion.
- **notes**: what is left out without effect on the motion, and settings of soft contact, which is
  hard here by design.

## Sensors

`sim.sensors(state, control)` reads what the file's `<sensor>` section measures and gives a tensor
`(B, dim)` by name, in MuJoCo's definitions, with `reftype`, `refname` and `cutoff` honoured;
`sim.sensors(trajectory)` reads all its states but the last, `(T, B, dim)`;
`physim simulate MODEL --sensors --output run.npz` saves that under `sensor/<name>`.

| read from | kinds |
| --- | --- |
| joints | jointpos, jointvel, ballquat, ballangvel, jointactuatorfrc |
| actuators | actuatorpos, actuatorvel, actuatorfrc |
| frames: place | framepos, framequat, framexaxis, frameyaxis, framezaxis, magnetometer |
| frames: motion | framelinvel, frameangvel, framelinacc, frameangacc |
| frames: motion in own axes | gyro, velocimeter, accelerometer |
| subtrees, energy | subtreecom, subtreelinvel, subtreeangmom, e_potential, e_kinetic |
| contact | touch, force, torque |

- Accelerations and forces are those of the coming step: the velocity changes by `next_state.v - v`
  over it. Without `next_state=` the step is taken, if such a sensor is among those asked for.
- All are differentiable but touch, force and torque, which carry no gradient. External forces of a
  step count in force and torque as if the parent supplied them.
- Other kinds (rangefinder, tendon, joint limit, clock, distances, plugins) are noted in
  `model.warnings`, and so are sensors of actuators that physim does not drive.

## URDF

`load_model("robot.urdf")` reads a robot as MuJoCo's compiler does, with these choices:

- Every link is a body of its name, also behind fixed joints. The root is fixed to the world;
  `floating_base=True` (`physim simulate --floating-base`) lets it move by a free joint called
  `floating_base`, and `floor=True` (`--floor`) adds the plane z = 0. A child of a root link `world`
  may also float by a joint of type `floating`.
- A revolute, continuous or prismatic joint whose `<limit>` has an `effort` above zero gets a motor
  of the joint's name; the control is its force [N or N m], bounded by the effort. Transmissions,
  Gazebo and other foreign elements are passed over.
- `<dynamics>` gives damping and dry friction. A `planar` joint is two slides and a hinge.
- Collision meshes are searched beside the file, in the folder above it that is called like the
  package of a `package://` name, and in `mesh_directory=`. They give masses where `<inertial>` is
  missing, and do not touch anything. Meshes that are only seen are passed over.
- Mimic joints move by themselves, which `model.warnings` says; velocity limits, joints without end
  stops and links without `<inertial>` are noted there.

## Public models

What a model of many joints or pairs costs is on [performance](performance.md#large-models).
"""


def model_files() -> list[tuple[str, Path]]:
    """Distribution and path of every model; a missing distribution is an error."""
    files = []
    for package, folder in SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            sys.exit(f"{package} is not installed; run: pip install {package}")
        found = sorted(Path(spec.origin).parent.joinpath(folder).glob("*.xml"))
        files += [(package, path) for path in found]
    return files


def row(package: str, path: Path, model: Model) -> str:
    """One line of the table."""
    changes = sum(warning.changes_dynamics for warning in model.warnings)
    cells = (
        f"[{path.stem}](#{path.parent.name}{path.name.replace('.', '').lower()})",
        package,
        len(model.bodies),
        model.nq,
        model.nv,
        model.nu,
        len(model.pairs),
        changes,
        len(model.warnings) - changes,
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def section(path: Path, model: Model) -> str:
    """Everything that one model says."""
    lines = [f"### {path.parent.name}/{path.name}", ""]
    if not model.warnings:
        lines.append("Honoured entirely.")
    for warning in model.warnings:
        word = "**changes the motion**" if warning.changes_dynamics else "note"
        lines.append(f"- {word}: {warning}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    rows, sections = [], []
    for package, path in model_files():
        model = load_model(path)
        rows.append(row(package, path, model))
        sections.append(section(path, model))
    columns = ("model", "from", "bodies", "nq", "nv", "nu", "pairs", "changes", "notes")
    table = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *rows]
    page = "\n".join([HEADER, *table, "", "## What each file asks for", "", *sections])
    target = Path(__file__).parent / "models.md"
    target.write_text(page.rstrip() + "\n", encoding="utf-8")
    print(f"{target}: {len(rows)} models")


if __name__ == "__main__":
    main()
