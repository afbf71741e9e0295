"""Reads MJCF or URDF and refuses hostile text or files before any parser written in C sees them.

Refused: document types and entities (exponential expansion), files over a size limit, references to
files outside the allowed folder (symbolic links followed), plugins (native code), and counts that
would make memory explode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from solvers.core import ModelError

from ._mesh_folders import MeshFolders
from ._urdf import Urdf, read_urdf

__all__ = ["ModelSource", "read_source"]

_MEBIBYTE = 2**20
_SIZE_LIMIT = 64 * _MEBIBYTE
# Elements after replicate and composite are unfolded; cells of a texture or height field.
_COUNT_LIMIT = 500_000
_CELL_LIMIT = 2**26

# One XML construct at the position of a "<". Comments are cut out here and not by the strict parser
# below, because MuJoCo accepts "--" inside them and real model files have it. Quoted values are
# matched whole, so that "<!--" inside a value does not open a comment: what is scanned is then
# exactly what MuJoCo will parse.
_QUOTED = r"""[^<>"']|"[^"]*+"|'[^']*+'"""
_CONSTRUCT = re.compile(
    rf"(?P<comment><!--.*?-->)|<\?.*?\?>|</?(?![!?])(?:{_QUOTED})(?:{_QUOTED})*+>", re.DOTALL
)
_FILE_ATTRIBUTES = ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")
_FOLDER_ATTRIBUTES = ("meshdir", "texturedir", "assetdir")
_NAN_TOKENS = frozenset({"nan", "+nan", "-nan"})
# Attributes whose value is a word: "nan" is then a name, if an odd one.
_WORD_ATTRIBUTES = frozenset(
    (
        "name class childclass model prefix target objname refname file data material texture "
        "joint joint1 joint2 jointinparent body body1 body2 geom geom1 geom2 site site1 site2 "
        "tendon tendon1 tendon2 actuator mesh hfield"
    ).split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A checked description of a model.

    Attributes:
        path: The file, or None for text.
        text: The XML text; for a file the main file's.
        label: The path or ``"<text>"``, for messages.
        urdf: The robot, if the source is URDF.
    """

    path: Path | None
    text: str
    label: str
    urdf: Urdf | None = None


def read_source(
    source: str | Path,
    *,
    root: str | Path | None = None,
    floating_base: bool = False,
    floor: bool = False,
    mesh_directory: str | Path | None = None,
) -> ModelSource:
    """Read and check a model description.

    Args:
        source: A path, or XML text (a string that starts with ``<`` after white space).
        root: Folder that referenced files must lie in; the model's own folder by default.
        floating_base: As in :func:`physim.model.load_model`.
        floor: As in :func:`physim.model.load_model`.
        mesh_directory: As in :func:`physim.model.load_model`.

    Returns:
        The checked source.

    Raises:
        ModelError: If the file is missing, too large, neither MJCF nor URDF, broken or hostile.
    """
    if isinstance(source, str) and source.lstrip("\ufeff \t\r\n").startswith("<"):
        text = source.lstrip("\ufeff \t\r\n")
        if len(text) > _SIZE_LIMIT:
            raise ModelError(
                f"the XML text has {len(text)} characters, more than the limit of {_SIZE_LIMIT}."
            )
        return _checked(None, text, root, floating_base, floor, mesh_directory)
    if not isinstance(source, str | Path):
        raise ModelError(
            f"source is a {type(source).__name__}; expected a path or a string with XML text."
        )
    if not str(source).strip():
        raise ModelError(
            "source is empty; expected a path to an MJCF file or XML text that starts with "
            "'<mujoco'."
        )
    path = Path(source).expanduser()
    text = _read(path, "model file")
    return _checked(path, text, root, floating_base, floor, mesh_directory)


def _checked(
    path: Path | None,
    text: str,
    root: str | Path | None,
    floating_base: bool,
    floor: bool,
    mesh_directory: str | Path | None,
) -> ModelSource:
    label = "<text>" if path is None else str(path)
    tree = _tree(text, label)
    folder = None if path is None else path.parent
    allowed = folder if root is None else Path(root).expanduser()
    if tree.tag == "robot":
        meshes = MeshFolders(folder=folder, root=allowed, directory=mesh_directory)
        robot = read_urdf(
            tree, label, floating_base=floating_base, floor=floor, find_mesh=meshes.find
        )
        for element in _elements(tree, label, is_main=False):
            _check_element(element, label)
        return ModelSource(path=None, text=robot.text, label=label, urdf=robot)
    given = {"floating_base": floating_base, "floor": floor, "mesh_directory": mesh_directory}
    for name, value in given.items():
        if value:
            raise ModelError(
                f"{name} is {value!r}, but {label} is no URDF; an MJCF file says this itself. "
                "Leave the argument out.",
                element=name,
            )
    scan = _Scan(folder=folder, root=None if path is None or allowed is None else allowed.resolve())
    scan.scan(tree, label, is_main=True)
    return ModelSource(path=path, text=text, label=label)


def _read(path: Path, role: str) -> str:
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{role} not found: {path} ({error}). Check the path and its spelling."
        ) from error
    if not is_file:
        raise ModelError(f"{role} is not a file: {path}. Give the path of an .xml file.")
    _check_size(path, size)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error
    except OSError as error:
        raise ModelError(f"{role} cannot be read: {path} ({error}).") from error
    return text


def _check_size(path: Path, size: int) -> None:
    if size > _SIZE_LIMIT:
        raise ModelError(
            f"{path} has {size / _MEBIBYTE:.0f} MiB, more than the limit of "
            f"{_SIZE_LIMIT // _MEBIBYTE} MiB."
        )


class _Scan:
    """Walks a model file and all it includes, and checks every path that they refer to."""

    def __init__(self, *, folder: Path | None, root: Path | None) -> None:
        self.folder = folder
        self.root = root
        self.visited: set[Path] = set()

    def scan(self, tree: ElementTree.Element, label: str, *, is_main: bool) -> None:
        elements = _elements(tree, label, is_main=is_main)
        folders, files = [""], []
        pending = [(label, self.folder, elements)]
        while pending:
            where, here, batch = pending.pop()
            for element in batch:
                folders += [element.get(key, "") for key in _FOLDER_ATTRIBUTES if element.get(key)]
                _check_element(element, where)
                for key in _FILE_ATTRIBUTES:
                    name = element.get(key)
                    if not name:
                        continue
                    if element.tag == "include":
                        pending += self._include(name, where, here)
                    elif element.tag == "model":
                        self._attach(name, where)
                    else:
                        files.append((f"<{element.tag}> in {where}", name))
        for owner, name in files:
            for folder in folders:
                self._check_path(name, owner, folder=folder)

    def _include(
        self, name: str, where: str, here: Path | None
    ) -> list[tuple[str, Path | None, list[ElementTree.Element]]]:
        found: list[tuple[str, Path | None, list[ElementTree.Element]]] = []
        # MuJoCo resolves against the main file's folder; the includer's folder is checked as well,
        # so that a change of that rule cannot open a way out.
        for base in dict.fromkeys((self.folder, here)):
            path = self._check_path(name, f"<include> in {where}", base=base)
            if path in self.visited or not path.exists():
                continue
            self.visited.add(path)
            text = _read(path, "included file")
            found.append(
                (
                    str(path),
                    path.parent,
                    _elements(_tree(text, str(path)), str(path), is_main=False),
                )
            )
        return found

    def _attach(self, name: str, where: str) -> None:
        path = self._check_path(name, f"<model> in {where}")
        if path in self.visited or not path.exists():
            return
        inner = _Scan(folder=path.parent, root=self.root)
        inner.visited = self.visited | {path}
        inner.scan(_tree(_read(path, "attached model"), str(path)), str(path), is_main=True)

    def _check_path(
        self, name: str, owner: str, *, folder: str = "", base: Path | None = None
    ) -> Path:
        base = base or self.folder
        if base is None or self.root is None:
            raise ModelError(
                f"{owner} refers to the file {name!r}, but a model given as text has no folder "
                "to read from. "
                "Write the text to a file and load that file.",
                element=owner,
            )
        if ":" in name or ":" in folder:
            raise ModelError(
                f"{owner} refers to {name!r}; only plain relative paths are allowed.", element=owner
            )
        try:
            path = (base / folder.replace("\\", "/") / name.replace("\\", "/")).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{owner} refers to {name!r}, which cannot be resolved ({error})."
            ) from error
        if not path.is_relative_to(self.root):
            raise ModelError(
                f"{owner} refers to {name!r}, which leads to {path}, outside {self.root}. Move "
                "the file into that folder "
                "or, if you trust the model, pass root= with a folder that contains both.",
                element=owner,
            )
        if path.is_file():
            _check_size(path, path.stat().st_size)
        return path


def _tree(text: str, label: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_strip_comments(text, label))
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise ModelError(
            f"{label} is not well-formed XML, line {line}: {error}.", element=f"line {line}"
        ) from error


def _elements(tree: ElementTree.Element, label: str, *, is_main: bool) -> list[ElementTree.Element]:
    """All elements of one MJCF text, in document order."""
    if is_main and tree.tag != "mujoco":
        raise ModelError(
            f"{label} has the root element <{tree.tag}>; expected <mujoco> (MJCF) or <robot> "
            "(URDF).",
            element=tree.tag,
        )
    _check_expansion(tree, label)
    return list(tree.iter())


def _strip_comments(text: str, label: str) -> str:
    if "\x00" in text:
        raise ModelError(
            f"{label} contains a null byte, line {text[: text.index(chr(0))].count(chr(10)) + 1}."
        )
    parts: list[str] = []
    position = 0
    while True:
        start = text.find("<", position)
        if start < 0:
            parts.append(text[position:])
            return "".join(parts)
        parts.append(text[position:start])
        match = _CONSTRUCT.match(text, start)
        if match is None:
            line = text.count("\n", 0, start) + 1
            excerpt = text[start : start + 24].split("\n", maxsplit=1)[0]
            if text.startswith("<!", start) and not text.startswith("<!--", start):
                raise ModelError(
                    f"{label}, line {line}: {excerpt!r} is refused; document types, entities "
                    "and CDATA sections have no "
                    "place in a model file. Remove it.",
                    element=f"line {line}",
                )
            raise ModelError(
                f"{label} is not well-formed XML, line {line}: cannot read {excerpt!r}.",
                element=f"line {line}",
            )
        # Keep the line breaks of a comment: later messages then name the right line.
        parts.append("\n" * match.group().count("\n") if match.group("comment") else match.group())
        position = match.end()


def _check_element(element: ElementTree.Element, where: str) -> None:
    tag = element.tag
    if tag in ("plugin", "extension"):
        name = element.get("plugin") or element.get("name") or ""
        raise ModelError(
            f"{where} uses <{tag}> {name!r}: plugins run native code and are refused. Remove "
            "the element.",
            element=tag,
        )
    for key, value in element.attrib.items():
        if key not in _WORD_ATTRIBUTES and not _NAN_TOKENS.isdisjoint(value.lower().split()):
            raise ModelError(
                f"<{tag}> {element.get('name', '')!r} in {where}: {key}={value!r} contains NaN; "
                "give a number.",
                element=element.get("name") or tag,
            )
    if tag == "texture":
        cells = _product(element.get("width")) * _product(element.get("height"))
        if (
            cells > _CELL_LIMIT
            or max(_product(element.get(k)) for k in ("width", "height")) ** 2 > _CELL_LIMIT
        ):
            raise ModelError(
                f"<texture> in {where} has over {_CELL_LIMIT} pixels; use a smaller one.",
                element=tag,
            )
    elif tag == "hfield":
        if _product(element.get("nrow")) * _product(element.get("ncol")) > _CELL_LIMIT:
            raise ModelError(
                f"<hfield> in {where} has over {_CELL_LIMIT} cells; use a smaller one.", element=tag
            )


def _check_expansion(tree: ElementTree.Element, label: str) -> None:
    """Refuse text whose nested ``count`` attributes multiply to more elements than the limit."""
    total, pending = 0.0, [(tree, 1.0)]
    while pending:
        element, copies = pending.pop()
        if element.tag in ("replicate", "composite", "flexcomp"):
            copies *= _product(element.get("count"))
        total += copies
        if total > _COUNT_LIMIT:
            raise ModelError(
                f"{label} unfolds to more than {_COUNT_LIMIT} elements at <{element.tag}> "
                f"(count={element.get('count', '1')!r}); lower the counts.",
                element=element.tag,
            )
        pending += [(child, copies) for child in element]


def _product(value: str | None) -> float:
    """Product of the numbers in an attribute; 1 if absent or not numbers, which MuJoCo reports."""
    product = 1.0
    for token in (value or "").split():
        try:
            product *= max(1.0, float(token))
        except ValueError:
            return 1.0
    return product
