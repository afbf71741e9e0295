"""A grid cut into slabs along its first axis, and the windows with which slabs overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "HALO",
    "Halo",
    "Slab",
    "add_halo",
    "cut_planes",
    "neighbours",
    "slab_window",
    "strips_of",
]

HALO = 4
"""Planes that a cycle needs: two sweeps and a residual on the way down, two sweeps on the way up,
less the first sweep of all, which starts from zero."""

Halo = tuple[Tensor | None, Tensor | None]
"""Planes before and after a slab; None where the grid ends."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Planes ``start`` to ``stop`` of a grid.

    Attributes:
        start: First plane.
        stop: Plane after the last one.
    """

    start: int
    stop: int


def cut_planes(planes: int, parts: int, *, unit: int = 1) -> list[Slab]:
    """Cut planes into slabs of about the same thickness.

    Args:
        planes: Planes of the grid.
        parts: Number of slabs.
        unit: Cuts fall on multiples of it.
    """
    coarse = -(-planes // unit)
    cuts = [unit * (coarse * part // parts) for part in range(parts)]
    return [Slab(a, b) for a, b in zip(cuts, [*cuts[1:], planes], strict=True)]


def slab_window(x: Tensor, slab: Slab, halo: int, *, faces: bool = False) -> Tensor:
    """Planes of a slab and ``halo`` planes on both sides; zero beyond the grid.

    Args:
        x: Cells, or faces between planes, of the whole grid.
        slab: The slab.
        halo: Planes on each side.
        faces: Whether ``x`` holds the faces between planes, of which a window has one less.
    """
    first, last = slab.start - halo, slab.stop + halo - faces
    inside = x[max(first, 0) : max(min(last, len(x)), 0)]
    before = x.new_zeros((max(-first, 0), *x.shape[1:]))
    after = x.new_zeros((last - first - len(inside) - len(before), *x.shape[1:]))
    return torch.cat([before, inside, after])


def strips_of(core: Tensor, halo: int) -> Halo:
    """The first and last planes of a slab, for its neighbours."""
    return core[:halo].clone(), core[len(core) - halo :].clone()


def neighbours(strips: Sequence[Halo]) -> list[Halo]:
    """What every slab gets from the ones before and after it.

    Args:
        strips: First and last planes of every slab.
    """
    before: list[Tensor | None] = [None, *(strip[1] for strip in strips[:-1])]
    after: list[Tensor | None] = [*(strip[0] for strip in strips[1:]), None]
    return list(zip(before, after, strict=True))


def add_halo(core: Tensor, halo: Halo, planes: int) -> Tensor:
    """Put the nearest ``planes`` planes of the neighbours around a slab.

    Args:
        core: Planes of the slab.
        halo: From `neighbours`; zeros where there is none.
        planes: Planes on each side, at most as many as the halo has.
    """
    nothing = core.new_zeros((planes, *core.shape[1:]))
    before, after = halo
    return torch.cat(
        [
            nothing if before is None else before[len(before) - planes :],
            core,
            nothing if after is None else after[:planes],
        ]
    )
