"""Linear systems out of files: matrices, and cells with sources."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import PhysimWarning, SettingsError, ShapeError, require_extra
from solvers.linear import LinearOperator, PoissonOperator, SparseOperator

__all__ = ["System", "read_system"]

_CELL_FIELDS = ("density", "coefficient", "values", "mass", "spacing", "periodic", "outside")
_SOURCES = ("source", "sources", "b")
_OF_AXES = {
    "spacing": (1, None, "one number, or one for each axis"),
    "periodic": (1, (0, 1), "0 or 1, or one of them for each axis"),
    "outside": (2, (1, 2), "1 (solid) or 2 (air), or a pair of these for each axis"),
}
_ENDINGS = ".mtx, .mtx.gz, .npz, .h5 or .hdf5"
_UNREADABLE = (
    ArithmeticError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a file asks for.

    Attributes:
        operator: The left-hand side.
        b: Right-hand sides, shape ``(*domain,)`` or ``(items, *domain)``.
        kind: ``"matrix"`` or ``"cells"``.
        right: Where the right-hand side comes from, in words.
    """

    operator: LinearOperator
    b: Tensor
    kind: str
    right: str


def read_system(path: Path, *, rhs: str | None) -> System:
    """Read a system.

    Args:
        path: Matrix Market, ``scipy.sparse.save_npz``, or an archive (``.npz``, HDF5) with
            ``cells`` and ``source``.
        rhs: ``"ones"``, ``"random"``, a file, or None for that of the file, else ones.

    Raises:
        SettingsError: If the file cannot be read as a system, with what is wrong in it.
        ShapeError: If parts do not fit together.
    """
    if path.is_dir():
        raise SettingsError(f"{path}: is a folder, expected a file {_ENDINGS}")
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such file")
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    if ending.lower() in (".mtx", ".mtx.gz"):
        return _matrix_system(path, _reading(path, "Matrix Market file", _read_market), rhs)
    if ending.lower() in (".npz", ".h5", ".hdf5"):
        arrays = _reading(path, "archive of arrays", _read_arrays)
        if "cells" in arrays:
            return _cell_system(path, arrays, rhs)
        if ending.lower() == ".npz" and "format" in arrays:
            return _matrix_system(path, _reading(path, "sparse matrix of SciPy", _read_scipy), rhs)
        raise SettingsError(
            f"{path}: holds {_listed(arrays)}, expected an array 'cells' (with 'source'), or a "
            "matrix written by scipy.sparse.save_npz"
        )
    raise SettingsError(f"{path}: ends in {path.suffix!r}, expected {_ENDINGS}")


def _reading(path: Path, kind: str, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except _UNREADABLE as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path}: is no readable {kind}: {error}") from error


def _read_market(path: Path) -> Any:
    import scipy.io

    return scipy.io.mmread(path)


def _read_scipy(path: Path) -> Any:
    import scipy.sparse

    matrix = scipy.sparse.load_npz(path)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    return scipy.sparse.csr_array(matrix)


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            # SciPy names the format of a matrix in bytes, which are no numbers.
            return dict(archive)
    h5py = require_extra("h5py", "fields")
    with h5py.File(path, "r") as file:
        # Groups and datasets without a shape hold no array.
        return {
            name: np.asarray(item)
            for name, item in file.items()
            if getattr(item, "shape", None) is not None
        }


def _matrix_system(path: Path, matrix: Any, rhs: str | None) -> System:
    import scipy.sparse

    entries = scipy.sparse.csr_array(matrix)
    rows, columns = entries.shape
    if rows != columns or not rows:
        raise ShapeError(
            f"{path}: the matrix is {rows} x {columns}, expected a square one; for least squares "
            "solve the normal equations A.T @ A"
        )
    if entries.dtype.kind == "c":
        raise SettingsError(
            f"{path}: the matrix has type {entries.dtype}, expected real numbers; solve "
            "[[Re, -Im], [Im, Re]] for the real and the imaginary part"
        )
    _check_real(f"{path}: the matrix", entries.data)
    if not entries.count_nonzero():
        raise SettingsError(f"{path}: the matrix is zero, so nothing solves it; expected numbers")
    operator = SparseOperator.from_scipy(entries.astype(np.float64))
    operator.check()
    b, right = _right_side(path, rhs, (rows,), None)
    return System(operator=operator, b=b, kind="matrix", right=right)


def _cell_system(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], rhs: str | None) -> System:
    cells = arrays["cells"]
    _check_real(f"{path}: cells", cells)
    if not np.array_equal(cells, np.round(cells)):
        raise SettingsError(f"{path}: cells holds fractions, expected 0 fluid, 1 solid, 2 air")
    fields: dict[str, Any] = {}
    for name in _CELL_FIELDS:
        if name in arrays:
            _check_real(f"{path}: {name}", arrays[name])
            fields[name] = _setting(path, name, arrays[name])
    _name_what_is_not_read(path, arrays, rhs)
    operator = PoissonOperator.from_cells(
        torch.from_numpy(cells.astype(np.int64)), dtype=torch.float64, **fields
    )
    operator.check()
    own = next((arrays[name] for name in _SOURCES if name in arrays), None)
    if own is None and rhs is None:
        raise SettingsError(
            f"{path}: holds {_listed(arrays)} and no 'source'; add the array, of the shape of "
            "cells, or give --rhs"
        )
    b, right = _right_side(path, rhs, operator.domain, own)
    return System(operator=operator, b=b + operator.source, kind="cells", right=right)


def _setting(path: Path, name: str, array: np.ndarray[Any, Any]) -> Any:
    """A field of cells, or what is said for each axis."""
    if name not in _OF_AXES:
        return torch.from_numpy(array.astype(np.float64))
    axes, kinds, expected = _OF_AXES[name]
    is_allowed = kinds is None or bool(np.isin(array, kinds).all())
    if array.ndim not in (0, axes) or not is_allowed:
        found = array.tolist() if array.size <= 8 else f"shape {array.shape}"
        raise SettingsError(f"{path}: {name}: got {found}, expected {expected}")
    numbers = array.astype(float if kinds is None else int)
    if name == "periodic":
        numbers = numbers.astype(bool)
    return numbers.item() if numbers.ndim == 0 else numbers.tolist()


def _name_what_is_not_read(
    path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], rhs: str | None
) -> None:
    """Warn of arrays beside the cells that nothing asks for, such as a misspelt field."""
    sources = [name for name in _SOURCES if name in arrays]
    read = {"cells", *_CELL_FIELDS, *(sources[:1] if rhs is None else sources)}
    rest = {name: array for name, array in arrays.items() if name not in read}
    if rest:
        warnings.warn(
            f"{path}: {_listed(rest)} of this file is not read; known are cells, "
            f"{', '.join((*_CELL_FIELDS, *_SOURCES))}",
            PhysimWarning,
            stacklevel=2,
        )


def _right_side(
    path: Path, rhs: str | None, domain: tuple[int, ...], own: np.ndarray[Any, Any] | None
) -> tuple[Tensor, str]:
    """Right-hand sides with the items first."""
    if rhs == "ones" or (rhs is None and own is None):
        return torch.ones(domain, dtype=torch.float64), "ones"
    if rhs == "random":
        generator = torch.Generator().manual_seed(0)
        return torch.randn(domain, generator=generator, dtype=torch.float64), "random, seed 0"
    where = f"source of {path}" if rhs is None else rhs
    array = own if rhs is None else _reading(Path(rhs), "right-hand side", _read_right)
    assert array is not None
    _check_real(where, array)
    axes = len(domain)
    if axes == 1 and array.ndim == 2 and array.shape[0] == domain[0]:
        # Columns are items, as in Matrix Market.
        array = array.T if array.shape[1] > 1 else array[:, 0]
    fits = array.ndim in (axes, axes + 1) and array.shape[array.ndim - axes :] == domain
    if not fits or not array.size:
        sizes = " x ".join(map(str, domain))
        wanted = (
            f"{sizes} numbers, or {sizes} x k for k right-hand sides"
            if axes == 1
            else f"{sizes} as cells, or k x {sizes} for k right-hand sides"
        )
        found = " x ".join(map(str, array.shape)) or "no axes"
        raise ShapeError(f"{where}: holds {found} numbers, expected {wanted}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)), where


def _read_right(path: Path) -> np.ndarray[Any, Any]:
    ending = path.suffix.lower()
    if not path.is_file():
        raise SettingsError(f"--rhs: {path} is no file, expected one, or 'ones' or 'random'")
    if ending == ".mtx":
        market = _read_market(path)
        return np.asarray(market.toarray() if hasattr(market, "toarray") else market)
    if ending == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if ending in (".txt", ".csv"):
        return np.loadtxt(path, delimiter="," if ending == ".csv" else None)
    if ending not in (".npz", ".h5", ".hdf5"):
        raise SettingsError(f"--rhs: {path} ends in {ending!r}, expected .mtx, .npy, .npz, .csv")
    arrays = _read_arrays(path)
    named = [arrays[name] for name in (*_SOURCES, "x") if name in arrays] or list(arrays.values())
    if len(named) != 1:
        raise SettingsError(f"--rhs: {path} holds {_listed(arrays)}, expected one array, or 'b'")
    return named[0]


def _check_real(name: str, array: np.ndarray[Any, Any]) -> None:
    kind = np.asarray(array).dtype
    if kind.kind not in "biuf":
        raise SettingsError(f"{name} has type {kind}, expected real numbers")
    if not np.isfinite(array).all():
        raise SettingsError(f"{name} holds NaN or infinity, expected finite numbers")


def _listed(arrays: Mapping[str, Any]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"
