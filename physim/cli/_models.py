"""Model names on the command line: a file, or one of the models that gymnasium brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from solvers.core import ModelError

__all__ = ["find_model", "gymnasium_models"]


def find_model(name: str) -> Path:
    """Find the file of a model.

    Args:
        name: Path of a file, or the name of a gymnasium model such as ``hopper``.

    Returns:
        The path.

    Raises:
        ModelError: If there is neither such a file nor such a name.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{name} is a folder, expected an MJCF or URDF file", element=name)
    known = gymnasium_models()
    stem = name.removesuffix(".xml").replace("-", "_").lower()
    if stem in known:
        return known[stem]
    hint = (
        f"one of gymnasium's models: {', '.join(sorted(known))}"
        if known
        else ('a name of gymnasium\'s models after: pip install "gymnasium"')
    )
    raise ModelError(f"no model file {name!r}; give a path, or {hint}", element=name)


def gymnasium_models() -> dict[str, Path]:
    """Files of gymnasium's MuJoCo models by name; empty if gymnasium is not installed."""
    # Located without importing it.
    spec = find_spec("gymnasium")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent / "envs" / "mujoco" / "assets"
    return {path.stem: path for path in folder.glob("*.xml")}
