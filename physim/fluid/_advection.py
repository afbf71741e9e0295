r"""Transport along a velocity field: semi-Lagrangian, and MacCormack's correction of it.

A semi-Lagrangian step looks where the particle of every point came from,

.. math:: (\mathcal A \phi)(x) = \phi\bigl(x - \Delta t\, u(x - \tfrac12 \Delta t\, u(x))\bigr),

and is stable for every time step. MacCormack's form carries the result back with the same rule and
takes half of the difference to the start as the error of a step,

.. math:: \phi^{+} = \mathcal A\phi + \tfrac12\bigl(\phi - \mathcal A^{-1}\mathcal A\phi\bigr),

limited to the values around the foot point, so that no new extremum appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from physim.fluid._grid import StaggeredGrid
from solvers.core import check_choice, check_positive

__all__ = ["Scheme", "advect", "sample"]

Scheme = Literal["maccormack", "semi-lagrangian"]


def advect(
    grid: StaggeredGrid,
    field: Tensor,
    velocity: Sequence[Tensor],
    timestep: float,
    *,
    component: int | None = None,
    scheme: Scheme = "maccormack",
) -> Tensor:
    """Carry a field along with a velocity for one step.

    Args:
        grid: The grid.
        field: Cell values, or with ``component`` the values on the faces across that axis.
        velocity: One component for each axis on its faces [m/s].
        timestep: Duration [s].
        component: Axis whose faces the field lives on; None for cells.
        scheme: ``"maccormack"`` or ``"semi-lagrangian"``.

    Returns:
        The field after the step. Beyond the grid a field has the value of its edge.

    Gradients: of field and velocity. Interpolation has kinks where a foot point passes a grid
    point, and MacCormack's limiter jumps there; for gradients through many steps the
    semi-Lagrangian scheme is the smoother one.
    Cost: two interpolations of the velocity for each axis and one of the field; MacCormack twice
    that.
    Reference: Stam 1999, "Stable fluids"; Selle, Fedkiw, Kim, Liu & Rossignac 2008, "An
    unconditionally stable MacCormack method".

    Example:
        >>> grid = StaggeredGrid((4, 4))
        >>> wind = (torch.ones(5, 4, dtype=torch.float64), torch.zeros(4, 5, dtype=torch.float64))
        >>> column = torch.zeros(4, 4, dtype=torch.float64)
        >>> column[0] = 1.0
        >>> advect(grid, column, wind, 1.0)[:, 0].tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    check_choice("scheme", scheme, ("maccormack", "semi-lagrangian"))
    check_positive("timestep", timestep)
    points = grid.centers() if component is None else grid.faces(component)
    points = points.to(field)
    here = _velocity_at(grid, velocity, points)
    feet = _trace(grid, velocity, points, here, timestep)
    ahead = sample(grid, field, feet, component)
    if scheme == "semi-lagrangian":
        return ahead
    back = sample(grid, ahead, _trace(grid, velocity, points, here, -timestep), component)
    corrected = ahead + 0.5 * (field - back)
    least, most = _around(grid, field, feet.detach(), component)
    return corrected.maximum(least).minimum(most)


def sample(grid: StaggeredGrid, field: Tensor, points: Tensor, component: int | None) -> Tensor:
    """Interpolate a field linearly in every axis.

    Args:
        grid: The grid.
        field: Cell values, or values on the faces across the axis ``component``.
        points: Positions [m], shape ``(*any, axes)``.
        component: Axis of the faces, None for cells.

    Returns:
        Values at the points, shape ``(*any,)``.
    """
    index = _index_of(grid, points, component)
    spans = torch.tensor([size - 1 for size in field.shape]).to(points)
    # From -1 to 1 between the outermost points; the last axis comes first.
    scaled = (2.0 * index / spans - 1.0).flip(-1)
    inner = scaled.reshape(1, *scaled.shape[:-1], grid.axes)
    values = functional.grid_sample(
        field[None, None], inner, mode="bilinear", padding_mode="border", align_corners=True
    )
    return values[0, 0]


def _index_of(grid: StaggeredGrid, points: Tensor, component: int | None) -> Tensor:
    """Positions in units of cells from the first point of a field."""
    offset = torch.full((grid.axes,), 0.5)
    if component is not None:
        offset[component] = 0.0
    return points / grid.spacing - offset.to(points)


def _velocity_at(grid: StaggeredGrid, velocity: Sequence[Tensor], points: Tensor) -> Tensor:
    return torch.stack([sample(grid, u, points, axis) for axis, u in enumerate(velocity)], -1)


def _trace(
    grid: StaggeredGrid, velocity: Sequence[Tensor], points: Tensor, here: Tensor, timestep: float
) -> Tensor:
    """Where the particles at the points were, by the midpoint rule."""
    return points - timestep * _velocity_at(grid, velocity, points - 0.5 * timestep * here)


def _around(
    grid: StaggeredGrid, field: Tensor, points: Tensor, component: int | None
) -> tuple[Tensor, Tensor]:
    """Least and largest of the values between which points are interpolated."""
    pool = functional.max_pool2d if grid.axes == 2 else functional.max_pool3d
    most = pool(field[None, None], kernel_size=2, stride=1)[0, 0]
    least = -pool(-field[None, None], kernel_size=2, stride=1)[0, 0]
    index = _index_of(grid, points, component).floor().long()
    flat = torch.zeros(index.shape[:-1], dtype=torch.long, device=index.device)
    for axis, size in enumerate(most.shape):
        flat = flat * size + index[..., axis].clamp(0, size - 1)
    return least.flatten()[flat], most.flatten()[flat]
