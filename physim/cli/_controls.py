"""Controls for a whole run: none, random and held, or from a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvers.core import SettingsError

if TYPE_CHECKING:
    from typing import Any

    from physim.model import Model

__all__ = ["control_range", "random_controls", "read_controls"]


def control_range(model: Model) -> tuple[Tensor, Tensor]:
    """Lower and upper controls, shape ``(nu,)``; -1 and 1 where the model sets no limit."""
    parameters = model.parameters()
    lower, upper = parameters["control_lower"].detach(), parameters["control_upper"].detach()
    return (
        torch.where(torch.isfinite(lower), lower, -torch.ones_like(lower)),
        torch.where(torch.isfinite(upper), upper, torch.ones_like(upper)),
    )


def random_controls(
    model: Model,
    *,
    steps: int,
    batch: int,
    timestep: float,
    hold: float,
    amplitude: float,
    seed: int,
) -> Tensor:
    """Controls drawn uniformly from the control range, each held for a while.

    The draws depend on the seed and on simulated time, not on the time step.

    Args:
        model: The model.
        steps: Number of steps.
        batch: Number of items.
        timestep: Length of a step [s].
        hold: How long a control is held [s].
        amplitude: Part of the control range about its middle that is used; 1 is all.
        seed: Seed.

    Returns:
        Controls, shape ``(steps, batch, nu)``.
    """
    if not (math.isfinite(hold) and hold > 0):
        raise SettingsError(f"--hold is {hold}, expected a positive time in seconds")
    if not (math.isfinite(amplitude) and amplitude >= 0):
        raise SettingsError(f"--amplitude is {amplitude}, expected 0 or more")
    generator = torch.Generator().manual_seed(seed)
    lower, upper = control_range(model)
    # The small part keeps 0.05 / 0.01 from falling below 5.
    draw = (torch.arange(steps, dtype=torch.float64) * (timestep / hold) + 1e-9).floor().long()
    shape = (int(draw[-1]) + 1, batch, model.nu)
    unit = 2.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.0
    values = 0.5 * (lower + upper) + 0.5 * (upper - lower) * amplitude * unit
    return values[draw]


def read_controls(path: Path, *, controls: int, batch: int) -> Tensor:
    """Read controls from ``.npz`` (array ``control``, or the only one) or ``.csv``.

    Args:
        path: The file; a row per step.
        controls: Number of controls of the model.
        batch: Number of items.

    Returns:
        Controls, shape ``(T, batch, nu)``.

    Raises:
        SettingsError: If the file is missing, broken or of the wrong shape.
    """
    if not path.is_file():
        raise SettingsError(
            f"--controls: {str(path)!r} is no file; expected zero, random or a .npz or .csv file"
        )
    array = _read_csv(path) if path.suffix == ".csv" else _read_npz(path)
    if array.ndim == 2:
        array = np.broadcast_to(array[:, None], (array.shape[0], batch, array.shape[1]))
    if array.ndim == 3 and array.shape[1] == 1:
        array = np.broadcast_to(array, (array.shape[0], batch, array.shape[2]))
    if array.ndim != 3 or array.shape[1:] != (batch, controls) or not len(array):
        raise SettingsError(
            f"--controls: {path} holds shape {array.shape}, expected (steps, {controls}) or "
            f"(steps, {batch}, {controls})"
        )
    if not np.isfinite(array).all():
        step = int(np.argwhere(~np.isfinite(array))[0][0])
        raise SettingsError(f"--controls: {path} holds a number that is not finite in row {step}")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _read_csv(path: Path) -> NDArray[Any]:
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    try:
        [float(cell) for cell in first.split(",")]
        header = 0
    except ValueError:
        header = 1
    try:
        return np.loadtxt(path, delimiter=",", skiprows=header, ndmin=2)
    except ValueError as error:
        raise SettingsError(f"--controls: {path} is no table of numbers: {error}") from error


def _read_npz(path: Path) -> NDArray[Any]:
    import zipfile

    if path.suffix != ".npz":
        raise SettingsError(f"--controls: {path} ends in {path.suffix!r}, expected .npz or .csv")
    try:
        with np.load(path) as file:
            names = list(file.files)
            name = "control" if "control" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise SettingsError(
                    f"--controls: {path} holds {names}, expected an array named 'control'"
                )
            array: NDArray[Any] = file[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"--controls: {path} is damaged or no .npz file ({error})") from error
    if array.dtype.kind not in "fiu":
        raise SettingsError(f"--controls: {path} holds {array.dtype}, expected real numbers")
    return array
