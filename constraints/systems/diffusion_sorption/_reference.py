"""Reference solutions by the method of lines, and the baseline that needs no network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from constraints.systems.diffusion_sorption._equation import DiffusionSorption
from constraints.systems.diffusion_sorption._initial import profiles
from solvers.core import NotConvergedError, SettingsError, ShapeError, check_positive

__all__ = ["interpolate_snapshots", "reference"]


def reference(
    initial: Tensor,
    system: DiffusionSorption | None = None,
    *,
    cells: int = 1024,
    times: int = 51,
    points: int = 128,
    rtol: float = 1e-6,
) -> Tensor:
    """Integrate the finite-volume equations with LSODA and a banded Jacobian.

    Args:
        initial: Parameters of profiles, ``(S,)`` or ``(S, 5)``, see `profiles`.
        system: Parameters.
        cells: Cells of the grid.
        times: Output times, from 0 to the duration.
        points: Points of the output, a divisor of ``cells``: means of neighbouring cells.
        rtol: Relative tolerance of the integrator.

    Returns:
        Concentrations of shape ``(S, points, times)``.

    Raises:
        SettingsError: If a number is out of range.
        ShapeError: If ``initial`` has another shape.
        NotConvergedError: If the integrator gives up.

    Source: the cells, and the ghost values at both ends, of Takamoto et al. 2022 (PDEBench), who
    use an explicit method instead.

    Example:
        >>> u = reference(torch.tensor([0.1]), cells=128, times=3)
        >>> u.shape
        torch.Size([1, 128, 3])
    """
    from scipy.integrate import solve_ivp

    system = system or DiffusionSorption()
    for name, value in (("cells", cells), ("times", times), ("points", points), ("rtol", rtol)):
        check_positive(name, value)
    if cells % points:
        raise SettingsError(f"points: got {points}, expected a divisor of cells = {cells}")
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    starts = profiles(initial.detach().double(), centres)
    at = np.linspace(0.0, system.duration, times)
    solutions = []
    for start in starts.numpy():
        found = solve_ivp(
            _slope(system, cells),
            (0.0, system.duration),
            start,
            method="LSODA",
            t_eval=at,
            rtol=rtol,
            atol=1e-3 * rtol,
            lband=2,
            uband=2,
        )
        if not found.success:
            raise NotConvergedError(
                f"reference: LSODA stopped at t = {found.t[-1]:g} ({found.message}); use a larger "
                "rtol or check the initial values"
            )
        solutions.append(found.y.reshape(points, cells // points, times).mean(1))
    return torch.from_numpy(np.stack(solutions))


def _slope(system: DiffusionSorption, cells: int) -> Any:
    dx = 1.0 / cells

    def slope(_: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
        left = np.concatenate([[1.0], u[:-1]])
        ghost = system.outflow * system.diffusion * (u[-1] - u[-2]) / dx
        right = np.concatenate([u[1:], [ghost]])
        power = (np.maximum(u, 0.0) + 1e-6) ** (system.exponent - 1)
        retardation = 1.0 + system.sorption * power
        change: NDArray[np.float64] = (
            system.diffusion / retardation * (left - 2 * u + right) / dx**2
        )
        return change

    return slope


def interpolate_snapshots(initial: Tensor, known: Tensor, solutions: Tensor) -> Tensor:
    """Linear interpolation between solutions that are known, in their initial value.

    Args:
        initial: Constants to predict for, shape ``(S,)``.
        known: Increasing constants with a solution, shape ``(k,)``, at least two.
        solutions: Their solutions, shape ``(k, points, times)``.

    Returns:
        Predictions of shape ``(S, points, times)``.

    Raises:
        ShapeError: If there are fewer than two, or shapes differ.
    """
    if known.ndim != 1 or len(known) < 2 or len(solutions) != len(known):
        raise ShapeError(
            f"known: got shape {tuple(known.shape)} for {len(solutions)} solutions, expected (k,) "
            "with k = 2 or more"
        )
    i = (torch.searchsorted(known, initial.contiguous(), right=True) - 1).clamp(0, len(known) - 2)
    share = ((initial - known[i]) / (known[i + 1] - known[i]))[:, None, None]
    return (1 - share) * solutions[i] + share * solutions[i + 1]
