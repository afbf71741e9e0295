"""A slab on its worker: the vectors of the conjugate gradient method on a window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.linear.distributed._slabs import Halo, Slab, add_halo, slab_window
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.operators._stencil import apply_stencil

__all__ = ["GridWindow", "SlabWorker"]


@dataclass(frozen=True, slots=True)
class GridWindow:
    """The operator on a slab and on ``halo`` planes around it.

    Attributes:
        couplings: Of the window, one tensor for each axis.
        excess: Boundary conductance and mass.
        halo: Planes on each side.
    """

    couplings: tuple[Tensor, ...]
    excess: Tensor
    halo: int

    @classmethod
    def cut(cls, operator: PoissonOperator, slab: Slab, halo: int) -> GridWindow:
        """Take the part of an operator that a slab needs.

        Args:
            operator: Of the whole grid.
            slab: The slab.
            halo: Planes on each side.
        """
        couplings = tuple(
            slab_window(coupling, slab, halo, faces=axis == 0)
            for axis, coupling in enumerate(operator.couplings)
        )
        return cls(couplings, slab_window(operator.excess, slab, halo), halo)


class SlabWorker(ABC):
    """Conjugate gradients on one slab.

    Vectors live on the window, so that one exchange serves several products: each product with the
    operator makes one more plane at the ends invalid, and the exchange of the preconditioned
    residual makes all planes valid again.

    Args:
        grid: The operator on the window.
    """

    def __init__(self, grid: GridWindow):
        self._grid = grid
        halo = grid.halo
        self._core = slice(halo, grid.excess.shape[0] - halo)
        self.x = torch.zeros_like(grid.excess)
        self.b = torch.zeros_like(grid.excess)
        self.r = torch.zeros_like(grid.excess)
        self.p = torch.zeros_like(grid.excess)
        self.product = torch.zeros_like(grid.excess)
        self.z = torch.zeros_like(grid.excess[self._core])

    @abstractmethod
    def begin(self) -> Any:
        """The first stage of the preconditioner, which needs no neighbour."""

    def start(self, x: Tensor, b: Tensor) -> tuple[float, Any]:
        """Begin from an iterate.

        Args:
            x: The iterate on the window.
            b: The right-hand side there.

        Returns:
            This slab's part of the square of the residual, and the first stage of the
            preconditioner.
        """
        self.x, self.b = x.clone(), b
        self.p = torch.zeros_like(b)
        return self.advance(0.0, True)

    def turn(self, beta: float, halo: Halo) -> float:
        """Make the new direction ``p = z + beta p`` and the product ``A p``.

        Args:
            beta: Part of the old direction.
            halo: Planes of ``z`` from the neighbours.

        Returns:
            This slab's part of ``p . A p``.
        """
        self.p = torch.add(add_halo(self.z, halo, self._grid.halo), self.p, alpha=beta)
        self.product = apply_stencil(self.p, self._grid.couplings, self._grid.excess)
        return _dot(self.p[self._core], self.product[self._core])

    def advance(self, alpha: float, renew: bool) -> tuple[float, Any]:
        """Step along the direction, then begin to precondition.

        Args:
            alpha: Length of the step.
            renew: Whether to compute the residual anew.

        Returns:
            This slab's part of the square of the residual, and the first stage.
        """
        self.x.add_(self.p, alpha=alpha)
        if renew:
            self.r = self.b - apply_stencil(self.x, self._grid.couplings, self._grid.excess)
        else:
            self.r = torch.sub(self.r, self.product, alpha=alpha)
        return self._square(), self.begin()

    def iterate(self) -> Tensor:
        """The iterate on the slab."""
        return self.x[self._core].clone()

    def overlap(self) -> float:
        """This slab's part of ``z . r``."""
        return _dot(self.z, self.r[self._core])

    def _square(self) -> float:
        return _dot(self.r[self._core], self.r[self._core])


def _dot(u: Tensor, v: Tensor) -> float:
    return float((u * v).sum())
