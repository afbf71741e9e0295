"""Trajectories read back from the files that `Trajectory.save` writes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import Report, SettingsError, require_extra

if TYPE_CHECKING:
    from physim.dynamics import Trajectory

__all__ = ["read_trajectory"]

_FIELDS = ("q", "v", "interval", "control", "time", "status", "iterations", "residual")
_OPTIONAL = ("impulses",)


def read_trajectory(path: str | Path) -> Trajectory:
    """Read a saved trajectory.

    Args:
        path: File that ``Trajectory.save`` wrote, ``.npz``, ``.h5`` or ``.hdf5``.

    Returns:
        The trajectory, without gradient history.

    Raises:
        SettingsError: If there is no such file or it holds no trajectory.
        MissingExtraError: If the file is HDF5 and h5py is not installed.
    """
    import torch

    from physim.dynamics import Trajectory

    source = Path(path)
    if not source.is_file():
        raise SettingsError(f"no trajectory file at {source}; make one with --output")
    arrays = _read_arrays(source)
    missing = [name for name in _FIELDS if name not in arrays]
    if missing or arrays["q"].ndim != 3 or len(arrays["time"]) < 2:
        raise SettingsError(
            f"{source} holds {sorted(arrays)}, expected what Trajectory.save writes"
            + (f"; {', '.join(missing)} missing" if missing else "")
        )
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    states: dict[str, Any] = {name: tensors[name] for name in ("q", "v", "interval", "control")}
    return Trajectory(
        **states,
        report=Report(
            status=tensors["status"],
            iterations=tensors["iterations"],
            residual=tensors["residual"],
            counts={
                name: tensor
                for name, tensor in tensors.items()
                if name not in (*_FIELDS, *_OPTIONAL)
            },
        ),
        impulses=tensors.get("impulses"),
        timestep=float(arrays["time"][1] - arrays["time"][0]),
    )


def _read_arrays(source: Path) -> dict[str, NDArray[Any]]:
    if source.suffix.lower() in (".h5", ".hdf5"):
        h5py = require_extra("h5py", "fields")
        try:
            with h5py.File(source, "r") as file:
                return {name: file[name][()] for name in file}
        except OSError as error:
            raise SettingsError(f"{source} is damaged or no HDF5 file ({error})") from error
    if source.suffix.lower() != ".npz":
        raise SettingsError(f"{source} ends in {source.suffix!r}, expected .npz, .h5 or .hdf5")
    try:
        # allow_pickle stays off: a data file must not run code.
        with np.load(source) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{source} is damaged or no .npz file ({error})") from error
