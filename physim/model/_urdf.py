"""URDF: checks a robot's tree and leaves of the file what MuJoCo's compiler shall read.

MuJoCo reads URDF itself. What it would take in silence, or refuse without saying where, is decided
here: names and tree, mesh files, the base, motors of joints with an effort limit, mimic joints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from solvers.core import ModelError

from ._names import close_matches
from ._records import ModelWarning

__all__ = ["Urdf", "read_urdf"]

_TYPES = ("revolute", "continuous", "prismatic", "fixed", "floating", "planar")
# All else is of other programs (Gazebo, ROS controllers), and some of it names native code.
_KEPT = ("link", "joint", "material", "mujoco")
_KEPT_OF_MUJOCO = ("compiler", "option", "size")
_WORLD = "world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Urdf:
    """A checked robot description.

    Attributes:
        text: What MuJoCo shall compile.
        base: Link that shall move freely; empty if the base is fixed to the world.
        has_floor: Whether a plane shall be added.
        motors: Joints that get a motor, and its largest force [N or N m], which may be infinite.
        warnings: What of the file is not honoured.
    """

    text: str
    base: str
    has_floor: bool
    motors: tuple[tuple[str, float], ...]
    warnings: tuple[ModelWarning, ...]


def read_urdf(
    robot: Element,
    label: str,
    *,
    floating_base: bool,
    floor: bool,
    find_mesh: Callable[[str, str, str], Path],
) -> Urdf:
    """Check a robot and prepare it for the compiler. The element is changed in place.

    Args:
        robot: The root element.
        label: Path of the file, or ``"<text>"``.
        floating_base: Whether the root link moves freely.
        floor: Whether a plane shall be added.
        find_mesh: Gives the file of a mesh from its name, the link that it belongs to, and the
            folder that the file says meshes are in.

    Returns:
        The description.

    Raises:
        ModelError: If links and joints do not make a tree, a number is none, or a mesh is missing.
    """
    for child in list(robot):
        if child.tag not in _KEPT:
            robot.remove(child)
    for material in robot.iter("material"):
        for texture in material.findall("texture"):
            material.remove(texture)
    links = _by_name(robot, "link", label)
    joints = _by_name(robot, "joint", label)
    root = _check_tree(links, joints, label)
    if floating_base and root == _WORLD:
        raise ModelError(
            f"{label}: the root link is called 'world', which is the world itself and cannot float "
            "(floating_base=True). Remove that link and its joint, or give the joint the type "
            "'floating'.",
            element=_WORLD,
        )
    warnings: list[ModelWarning] = []
    motors = []
    for name, joint in joints.items():
        effort = _prepare_joint(name, joint, label, warnings)
        if effort > 0:
            motors.append((name, effort))
    folder = _prepare_compiler(robot)
    for name, link in links.items():
        _prepare_link(name, link, label, warnings, is_fixed=name == root and not floating_base)
        for mesh in link.iterfind("collision/geometry/mesh"):
            mesh.set("filename", str(find_mesh(mesh.get("filename", ""), name, folder)))
    return Urdf(
        text=ElementTree.tostring(robot, encoding="unicode"),
        base=root if floating_base else "",
        has_floor=floor,
        motors=tuple(motors),
        warnings=tuple(warnings),
    )


def _note(element: str, message: str) -> ModelWarning:
    return ModelWarning(element=element, message=message, changes_dynamics=False)


def _by_name(robot: Element, tag: str, label: str) -> dict[str, Element]:
    found: dict[str, Element] = {}
    for element in robot.findall(tag):
        name = element.get("name", "")
        if not name or name in found:
            trouble = f"two of <{tag}> are called {name!r}" if name else f"a <{tag}> has no name"
            raise ModelError(
                f"{label}: {trouble}; expected a name of its own for each.",
                element=name or tag,
            )
        found[name] = element
    if tag == "link" and not found:
        raise ModelError(f"{label}: the robot has no <link>; expected at least one.", element=tag)
    return found


def _check_tree(links: dict[str, Element], joints: dict[str, Element], label: str) -> str:
    """The root link of the tree that the joints make."""
    parents: dict[str, str] = {}
    for name, joint in joints.items():
        ends = {}
        for role in ("parent", "child"):
            end = joint.find(role)
            link = "" if end is None else end.get("link", "")
            if link not in links:
                raise ModelError(
                    f"{label}: joint {name!r} has the {role} link {link!r}, which does not exist."
                    f"{close_matches(link, links)}",
                    element=name,
                )
            ends[role] = link
        if ends["child"] in parents:
            raise ModelError(
                f"{label}: link {ends['child']!r} is the child of two joints, the second of them "
                f"{name!r}; expected a tree. Closed loops cannot be written in URDF.",
                element=name,
            )
        parents[ends["child"]] = ends["parent"]
    roots = [link for link in links if link not in parents]
    if len(roots) != 1:
        found = f"the links {', '.join(map(repr, roots[:5]))} have" if roots else "no link has"
        raise ModelError(
            f"{label}: {found} no parent joint; expected exactly one root link. "
            f"{'Join them by fixed joints' if roots else 'Cut the loop of joints'}.",
            element=roots[1] if roots else "joint",
        )
    _check_reach(parents, roots[0], links, label)
    return roots[0]


def _check_reach(parents: dict[str, str], root: str, links: dict[str, Element], label: str) -> None:
    reached, growing = {root}, True
    while growing:
        more = {child for child, parent in parents.items() if parent in reached} - reached
        reached |= more
        growing = bool(more)
    lost = [link for link in links if link not in reached]
    if lost:
        raise ModelError(
            f"{label}: the links {', '.join(map(repr, lost[:5]))} hang in a loop of joints that "
            f"the root {root!r} does not reach; expected a tree.",
            element=lost[0],
        )


def _prepare_link(
    name: str, link: Element, label: str, warnings: list[ModelWarning], *, is_fixed: bool
) -> None:
    owner, mass = f"link '{name}'", link.find("inertial/mass")
    if mass is not None and _number(mass, "value", owner, label) < 0:
        raise ModelError(
            f"{label}: {owner} has the mass {mass.get('value')}; expected 0 or more.", element=name
        )
    if not is_fixed and link.find("inertial") is None and link.find("collision") is not None:
        message = "no <inertial>: its mass is that of its collision shapes at 1000 kg/m^3."
        warnings.append(_note(owner, message))
    for visual in link.findall("visual"):
        # Meshes that are only seen are not among the shapes; their files may be missing.
        if visual.find("geometry/mesh") is not None:
            link.remove(visual)


def _prepare_joint(name: str, joint: Element, label: str, warnings: list[ModelWarning]) -> float:
    """Check one joint; give the largest force of its motor, 0 for none."""
    kind, owner = joint.get("type", ""), f"joint '{name}'"
    if kind not in _TYPES:
        raise ModelError(
            f"{label}: joint {name!r} has the type {kind!r}, expected one of {', '.join(_TYPES)}.",
            element=name,
        )
    parent = joint.find("parent")
    if kind == "floating" and (parent is None or parent.get("link") != _WORLD):
        raise ModelError(
            f"{label}: joint {name!r} is of type 'floating' between two links; only a child of a "
            "root link called 'world' can float, or the root with floating_base=True.",
            element=name,
        )
    limit, mimic = joint.find("limit"), joint.find("mimic")
    if mimic is not None:
        joint.remove(mimic)
        other = mimic.get("joint", "")
        message = f"its coupling to joint '{other}' (mimic) is left out: it moves by itself."
        warnings.append(ModelWarning(element=owner, message=message, changes_dynamics=True))
    if kind not in ("revolute", "continuous", "prismatic"):
        return 0.0
    if limit is None:
        if kind != "continuous":
            warnings.append(_note(owner, "no <limit>: it has no end stops."))
        return 0.0
    if kind != "continuous":
        lower, upper = (_number(limit, key, owner, label) for key in ("lower", "upper"))
        if lower > upper:
            raise ModelError(
                f"{label}: the limit of joint {name!r} is [{lower:g}, {upper:g}]; expected lower < "
                "upper. Swap the bounds.",
                element=name,
            )
        if lower == upper:
            warnings.append(_note(owner, "an empty <limit>: it has no end stops."))
    if 0 < _number(limit, "velocity", owner, label) < math.inf:
        warnings.append(_note(owner, "the velocity limit is left out."))
    effort = _number(limit, "effort", owner, label)
    if effort < 0:
        warnings.append(_note(owner, f"no motor, because of a negative effort limit ({effort:g})."))
    return 0.0 if mimic is not None else effort


def _number(element: Element, key: str, owner: str, label: str) -> float:
    try:
        value = float(element.get(key, "0"))
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ModelError(
            f"{label}: {owner} has the {key} {element.get(key)!r}; expected a number.",
            element=owner,
        )
    return value


def _prepare_compiler(robot: Element) -> str:
    """Keep the compiler's settings that the file gives; give the folder of meshes."""
    extension = robot.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(robot, "mujoco")
    for child in list(extension):
        if child.tag not in _KEPT_OF_MUJOCO:
            extension.remove(child)
    compiler = extension.find("compiler")
    if compiler is None:
        compiler = ElementTree.SubElement(extension, "compiler")
    # Links keep their names, fixed ones too; meshes are given by their whole path.
    compiler.set("fusestatic", compiler.get("fusestatic", "false"))
    compiler.set("strippath", "false")
    return compiler.attrib.pop("meshdir", "")
