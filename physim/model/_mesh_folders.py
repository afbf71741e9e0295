"""Where the meshes of a URDF robot are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solvers.core import ModelError

__all__ = ["MeshFolders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFolders:
    """Finds mesh files and refuses those outside the allowed folders.

    Attributes:
        folder: Folder of the robot's file; None for text.
        root: Folder that files must lie in, if the directory is not given.
        directory: Folder of packages, or of one package.
    """

    folder: Path | None
    root: Path | None
    directory: str | Path | None

    def find(self, name: str, link: str, subfolder: str) -> Path:
        """The file of a mesh.

        Args:
            name: As the robot gives it: a relative path, or ``package://<package>/<path>``.
            link: Link that it belongs to.
            subfolder: Folder of relative paths below that of the robot's file.

        Returns:
            The absolute path.

        Raises:
            ModelError: If it is not found, or lies outside the allowed folders.
        """
        if name.startswith(("http:", "https:", "model:", "file:")):
            raise ModelError(
                f"link {link!r} has the mesh {name!r}; expected a relative path or package://.",
                element=link,
            )
        tried = []
        for place in self._places(name, subfolder):
            path = place.resolve()
            tried.append(str(path))
            if path.is_file():
                self._check_inside(path, name, link)
                return path
        where = f" (looked for {', '.join(tried[:4])})" if tried else ""
        raise ModelError(
            f"the mesh {name!r} of link {link!r} is not found{where}. Pass mesh_directory= with "
            "the folder that holds the package, or replace the collision mesh by primitive shapes.",
            element=link,
        )

    def _places(self, name: str, subfolder: str) -> Iterator[Path]:
        bases = [] if self.directory is None else [Path(self.directory).expanduser()]
        if not name.startswith("package://"):
            if self.folder is not None:
                yield self.folder / subfolder / name
                # With a folder of meshes, MuJoCo's rule is that the file's own path is dropped.
                yield self.folder / subfolder / Path(name).name
            for base in bases:
                yield base / name
            return
        package, _, rest = name.removeprefix("package://").partition("/")
        for base in bases:
            yield base / package / rest
            yield base / rest
        if self.folder is not None:
            for above in (self.folder.resolve(), *self.folder.resolve().parents):
                if above.name == package:
                    yield above / rest
            yield self.folder / package / rest
            yield self.folder / rest

    def _check_inside(self, path: Path, name: str, link: str) -> None:
        allowed = [folder for folder in (self.root, self.directory) if folder is not None]
        if not any(path.is_relative_to(Path(folder).expanduser().resolve()) for folder in allowed):
            raise ModelError(
                f"the mesh {name!r} of link {link!r} is {path}, outside the robot's folder. If you "
                "trust the file, pass mesh_directory= with the folder that holds the package.",
                element=link,
            )
