"""Coefficients on which geometric multigrid is weak: channels, sheets, plates, noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from solvers.linear import PoissonOperator

__all__ = ["FAMILIES", "build_family", "move_coefficients"]

Fields = list[np.ndarray]


def build_family(name: str, n: int, seed: int) -> tuple[PoissonOperator, Tensor]:
    """A cube of ``n`` cells a side with a known value above, and white noise as right-hand side."""
    rng = np.random.default_rng([len(name), seed])
    fields = FAMILIES[name](n, rng)
    boundary = torch.zeros(n, n, n, dtype=torch.float64)
    boundary[..., -1] = torch.from_numpy(2.0 * fields[2][..., -1])
    couplings = []
    for axis, field in enumerate(fields):
        low = np.take(field, np.arange(n - 1), axis)
        high = np.take(field, np.arange(1, n), axis)
        couplings.append(torch.from_numpy(2.0 * low * high / (low + high)))
    return PoissonOperator(couplings, boundary), torch.from_numpy(rng.normal(size=(n, n, n)))


def move_coefficients(A: PoissonOperator, rng: np.random.Generator) -> PoissonOperator:
    """Every cell times ``exp(0.3 n)`` with its own normal ``n``."""
    factor = torch.from_numpy(np.exp(0.15 * rng.normal(size=A.domain)))
    moved = {"boundary": A.boundary}
    for axis, coupling in enumerate(A.couplings):
        size = A.domain[axis] - 1
        sides = factor.narrow(axis, 0, size) * factor.narrow(axis, 1, size)
        moved[f"coupling{axis}"] = coupling * sides
    return A.with_coefficients(moved)


def _channels(n: int, rng: np.random.Generator) -> Fields:
    beta = np.ones((n, n, n))
    for _ in range(max(4, 60 * n * n // 4096)):
        index: list[int | slice] = [int(i) for i in rng.integers(n, size=3)]
        index[rng.integers(3)] = slice(None)
        beta[tuple(index)] = 1e5
    return [beta] * 3


def _sheets(n: int, rng: np.random.Generator) -> Fields:
    beta = np.ones((n, n, n))
    first, second = (np.cumsum(rng.integers(3, top, n)) for top in (8, 10))
    beta[first[first < n]] = 1e-4
    beta[:, second[second < n]] = 1e-4
    return [beta] * 3


def _plates(n: int, rng: np.random.Generator) -> Fields:
    beta = np.ones((n, n, n))
    at = np.indices(beta.shape).astype(float)
    for k in range(14):
        normal = rng.normal(size=3)
        gap = at - rng.uniform(0, n, 3)[:, None, None, None]
        height = np.tensordot(normal / np.linalg.norm(normal), gap, 1)
        disc = (np.abs(height) < 0.8) & ((gap**2).sum(0) < (0.35 * n) ** 2)
        beta[disc] = 1e5 if k % 2 else 1e-5
    return [beta] * 3


def _mixed(n: int, rng: np.random.Generator) -> Fields:
    block = max(4, n // 4)
    strong = np.kron(rng.integers(3, size=(n // block + 1,) * 3), np.ones((block,) * 3))
    strong = strong[:n, :n, :n]
    return [np.where(strong == axis, 100.0, 1.0) for axis in range(3)]


def _stretched(n: int, rng: np.random.Generator) -> Fields:
    widths = [np.exp(6 * ndimage.gaussian_filter(rng.normal(size=n), 3)) for _ in range(3)]
    x, y, z = np.meshgrid(*widths, indexing="ij")
    return [y * z / x, x * z / y, x * y / z]


def _binary(contrast: float) -> Callable[[int, np.random.Generator], Fields]:
    return lambda n, rng: [np.where(rng.random((n, n, n)) < 0.3, contrast, 1.0)] * 3


def _log_normal(n: int, rng: np.random.Generator) -> Fields:
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, n, n)), 1.5, mode="wrap")
    return [np.exp(3 * smooth / smooth.std())] * 3


FAMILIES: dict[str, Callable[[int, np.random.Generator], Fields]] = {
    "channels": _channels,
    "sheets": _sheets,
    "plates": _plates,
    "mixed": _mixed,
    "stretched": _stretched,
    "binary noise 1e3": _binary(1e3),
    "binary noise 1e6": _binary(1e6),
    "log-normal": _log_normal,
}
