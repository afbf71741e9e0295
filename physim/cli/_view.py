"""``physim view``: a picture or a film of a saved trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physim.cli._models import find_model
from solvers.core import SettingsError

if TYPE_CHECKING:
    from physim.dynamics import Trajectory
    from physim.model import Model

__all__ = ["render", "view"]

_FILM = (".html", ".htm")


def view(
    trajectory: Annotated[
        Path, typer.Argument(help="Trajectory that simulate --output saved, .npz or .h5.")
    ],
    model: Annotated[
        str, typer.Argument(help="The model that made it: MJCF or URDF file, or gymnasium name.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Film (.html) or picture (.png, .svg, .pdf).")
    ],
    floating_base: Annotated[
        bool, typer.Option("--floating-base", help="As it was simulated, for a URDF robot.")
    ] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="As it was simulated, for a URDF robot.")
    ] = False,
    item: Annotated[
        int | None, typer.Option(min=0, help="Batch item; a film has the first four by default.")
    ] = None,
) -> None:
    """Render a saved trajectory as a film or a picture."""
    path = find_model(model)

    import warnings

    import physim
    from physim.view import read_trajectory

    saved = read_trajectory(trajectory)
    with warnings.catch_warnings():
        # Said when it was simulated; a picture does not depend on it.
        warnings.simplefilter("ignore")
        loaded = physim.load_model(path, floating_base=floating_base, floor=floor)
    typer.echo(f"wrote {render(loaded, saved, output, item=item)}")


def render(model: Model, trajectory: Trajectory, path: Path, *, item: int | None = None) -> Path:
    """Write a film or a picture, by the file's ending.

    Raises:
        SettingsError: If the item or the folder does not exist, or the ending is not known.
    """
    from physim.view import film, picture

    if path.suffix.lower() in _FILM:
        return film(model, trajectory, path, items=None if item is None else (item,))
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise SettingsError(f"--output: {path} must end in .html, .png, .svg or .pdf")
    return picture(model, trajectory, path, item=item or 0)
