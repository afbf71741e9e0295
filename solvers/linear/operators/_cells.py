"""From cells of fluid, solid and air to couplings, boundary conductances and sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_positive, is_mapped

__all__ = ["Assembled", "assemble"]

FLUID, SOLID, AIR = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What a scene gives: couplings, boundary conductance, mass, and the source of knowns."""

    couplings: tuple[Tensor, ...]
    boundary: Tensor
    mass: Tensor | None
    source: Tensor


def assemble(
    cells: Tensor | np.ndarray[Any, Any],
    *,
    spacing: float | Sequence[float],
    density: Tensor | None,
    coefficient: Tensor | None,
    values: Tensor | float | None,
    fluxes: Sequence[Tensor | None] | None,
    mass: Tensor | float | None,
    periodic: bool | Sequence[bool],
    outside: int | Sequence[tuple[int, int]],
    dtype: torch.dtype | None,
) -> Assembled:
    """Assemble a scene; the arguments are those of ``PoissonOperator.from_cells``."""
    kinds = _check_cells(cells)
    axes = kinds.ndim
    steps = _for_each_axis("spacing", spacing, axes)
    closed = _for_each_axis("periodic", periodic, axes)
    sides = _check_outside(outside, axes)
    if fluxes is not None and len(fluxes) != axes:
        raise ShapeError(
            f"fluxes: got {len(fluxes)} entries, expected one for each of {axes} axes, None where "
            "there is no flux"
        )
    beta = _cell_coefficient(kinds, density, coefficient, dtype, (values, mass))
    known = _cell_field("values", 0.0 if values is None else values, kinds, beta)
    beyond = known.flatten()[0] if np.ndim(values) == 0 else 0.0  # type: ignore[arg-type]

    fluid = kinds == FLUID
    boundary = torch.zeros_like(beta)
    source = torch.zeros_like(beta)
    couplings = []
    for axis, step in enumerate(steps):
        place = axis - axes
        scale = 1.0 / step**2
        here, there = _pairs(kinds, place, closed[axis])
        low, high = _pairs(beta, place, closed[axis])
        total = low + high
        # Nothing goes through a face between two cells that conduct nothing.
        mean = 2.0 * low * (high / torch.where(total > 0, total, 1.0))
        between = (here == FLUID) & (there == FLUID)
        couplings.append(torch.where(between, scale * mean, 0.0))
        for side in (0, 1):
            pair = sides[axis]
            kind = _neighbour(kinds, place, side, closed[axis], pair[side])
            value = _neighbour(known, place, side, closed[axis], beyond)
            open_face = fluid & (kind == AIR)
            conductance = torch.where(open_face, scale * beta, 0.0)
            boundary = boundary + conductance
            source = source + conductance * value
            flux = None if fluxes is None else fluxes[axis]
            if flux is not None:
                through = _face_flux(flux, axis, side, kinds, beta)
                wall = fluid & (kind == SOLID)
                sign = 1.0 if side == 1 else -1.0
                source = source + torch.where(wall, sign / step * through, 0.0)
    mass_field = None if mass is None else _cell_field("mass", mass, kinds, beta) * fluid
    return Assembled(couplings=tuple(couplings), boundary=boundary, mass=mass_field, source=source)


def _check_outside(outside: Any, axes: int) -> list[tuple[int, int]]:
    sides = [(outside, outside)] * axes if isinstance(outside, int) else list(outside)
    kinds = [tuple(pair) if np.ndim(pair) == 1 else (pair,) for pair in sides]
    if len(kinds) != axes or any(len(pair) != 2 or {*pair} - {SOLID, AIR} for pair in kinds):
        raise SettingsError(
            f"outside: got {outside!r}, expected 1 (solid) or 2 (air), or a pair of these for "
            f"each of {axes} axes"
        )
    return sides


def _check_cells(cells: Tensor | np.ndarray[Any, Any]) -> Tensor:
    given = kinds = torch.as_tensor(cells)
    if not 1 <= kinds.ndim <= 3 or 0 in kinds.shape:
        raise ShapeError(
            f"cells: got shape {tuple(kinds.shape)}, expected a grid of 1 to 3 axes with at least "
            "one cell each; a batch shares one scene and differs in density"
        )
    kinds = kinds.to(torch.int64)
    if bool(((kinds < FLUID) | (kinds > AIR) | (kinds != given)).any()):
        raise SettingsError(
            f"cells: got numbers {given.unique().tolist()[:8]}, expected 0 fluid, 1 solid, 2 air"
        )
    if not bool((kinds == FLUID).any()):
        raise SettingsError("cells: there is no fluid (0), so there is nothing to solve")
    return kinds


def _cell_coefficient(
    kinds: Tensor,
    density: Tensor | None,
    coefficient: Tensor | None,
    dtype: torch.dtype | None,
    others: tuple[object, ...],
) -> Tensor:
    if density is not None and coefficient is not None:
        raise SettingsError("density and coefficient: got both, expected one (they are inverse)")
    if dtype is not None and not dtype.is_floating_point:
        raise SettingsError(f"dtype: got {dtype}, expected a floating-point type")
    given = density if coefficient is None else coefficient
    tensors = [t for t in (given, *others) if isinstance(t, Tensor) and t.is_floating_point()]
    kind = dtype or (tensors[0].dtype if tensors else torch.float64)
    device = tensors[0].device if tensors else kinds.device
    if given is None:
        return torch.ones(kinds.shape, dtype=kind, device=device)
    name = "density" if coefficient is None else "coefficient"
    field = torch.as_tensor(given).to(dtype=kind)
    field = field.expand(kinds.shape) if field.ndim == 0 else field
    if tuple(field.shape[field.ndim - kinds.ndim :]) != tuple(kinds.shape):
        raise ShapeError(
            f"{name}: got shape {tuple(field.shape)}, expected (..., *{tuple(kinds.shape)}) like "
            "cells"
        )
    # Solids may carry any number, zero included.
    fluid = (kinds == FLUID).to(field.device)
    field = torch.where(fluid, field, 1.0)
    if coefficient is None and not is_mapped(field):
        check_positive("density", field.detach())
    return 1.0 / field if coefficient is None else field


def _cell_field(name: str, field: Tensor | float, kinds: Tensor, like: Tensor) -> Tensor:
    tensor = torch.as_tensor(field, dtype=like.dtype, device=like.device)
    if tensor.ndim == 0:
        return tensor.expand(kinds.shape)
    if tuple(tensor.shape[tensor.ndim - kinds.ndim :]) != tuple(kinds.shape):
        raise ShapeError(
            f"{name}: got shape {tuple(tensor.shape)}, expected a number or "
            f"(..., *{tuple(kinds.shape)}) like cells"
        )
    return tensor


def _pairs(x: Tensor, axis: int, is_periodic: bool) -> tuple[Tensor, Tensor]:
    size = x.shape[axis]
    if is_periodic:
        return x, x.roll(-1, axis)
    return x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1)


def _neighbour(
    x: Tensor, axis: int, side: int, is_periodic: bool, beyond: Tensor | float
) -> Tensor:
    """The neighbour of every cell along an axis: side 0 the one before, 1 the one after."""
    if is_periodic:
        return x.roll(1 if side == 0 else -1, axis)
    size = x.shape[axis]
    shape = list(x.shape)
    shape[axis] = 1
    edge = torch.as_tensor(beyond, dtype=x.dtype, device=x.device).expand(shape)
    parts = (
        (edge, x.narrow(axis, 0, size - 1)) if side == 0 else (x.narrow(axis, 1, size - 1), edge)
    )
    return torch.cat(parts, axis)


def _face_flux(flux: Tensor, axis: int, side: int, kinds: Tensor, like: Tensor) -> Tensor:
    expected = list(kinds.shape)
    expected[axis] += 1
    tensor = torch.as_tensor(flux, dtype=like.dtype, device=like.device)
    if list(tensor.shape[tensor.ndim - kinds.ndim :]) != expected:
        raise ShapeError(
            f"fluxes[{axis}]: got shape {tuple(tensor.shape)}, expected (..., *{tuple(expected)}), "
            "one entry for every face"
        )
    return tensor.narrow(axis - kinds.ndim, side, kinds.shape[axis])


def _for_each_axis(name: str, setting: Any, axes: int) -> list[Any]:
    if isinstance(setting, str):
        raise SettingsError(f"{name}: got {setting!r}, expected one number, or one for each axis")
    settings = [setting] * axes if np.ndim(setting) == 0 else list(setting)
    if len(settings) != axes:
        raise SettingsError(f"{name}: got {len(settings)} numbers, expected one for {axes} axes")
    if name == "spacing" and not all(step > 0 for step in settings):
        raise SettingsError(f"spacing: got {settings}, expected more than zero")
    return settings
