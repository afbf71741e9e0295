r"""The staggered grid: scalars at cell centres, each velocity component on the faces it crosses.

With the discrete divergence :math:`D` of face values and the gradient :math:`G` of cell values,
:math:`\langle D u, p\rangle = -\langle u, G p\rangle` for velocities that vanish on the sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_count, check_positive

__all__ = ["StaggeredGrid"]


@dataclass(frozen=True, slots=True)
class StaggeredGrid:
    """Cells of equal size in 2 or 3 axes; the last axis points up.

    Positions are in metres from the corner of the grid: the centre of cell ``i`` of an axis is at
    ``(i + 1/2) spacing``, its lower face at ``i spacing``.

    Args:
        shape: Cells along each axis, at least two.
        spacing: Side of a cell [m].

    Raises:
        ShapeError: If there are not two or three axes of at least two cells.
        SettingsError: If the spacing is not positive.

    Reference: Harlow & Welch 1965, "Numerical calculation of time-dependent viscous incompressible
    flow of fluid with free surface".

    Example:
        >>> StaggeredGrid((8, 12), 0.1).face_shape(1)
        (8, 13)
    """

    shape: tuple[int, ...]
    spacing: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Sequence):
            raise ShapeError(f"shape: got {self.shape!r}, expected a number of cells for each axis")
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            check_count("shape", size)
        if len(self.shape) not in (2, 3) or min(self.shape) < 2:
            raise ShapeError(
                f"shape: got {self.shape}, expected two or three axes of at least two cells"
            )
        check_positive("spacing", self.spacing)

    @property
    def axes(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def face_shape(self, axis: int) -> tuple[int, ...]:
        """Shape of the velocity component along an axis."""
        return tuple(size + (place == axis) for place, size in enumerate(self.shape))

    def centers(self) -> Tensor:
        """Positions of the cell centres [m], shape ``(*shape, axes)``."""
        return self._positions([0.5] * self.axes, self.shape)

    def faces(self, axis: int) -> Tensor:
        """Positions of the faces across an axis [m], shape ``(*face_shape, axes)``."""
        offsets = [0.0 if place == axis else 0.5 for place in range(self.axes)]
        return self._positions(offsets, self.face_shape(axis))

    def _positions(self, offsets: Sequence[float], shape: Sequence[int]) -> Tensor:
        lines = [
            self.spacing * (torch.arange(size, dtype=torch.float64) + offset)
            for size, offset in zip(shape, offsets, strict=True)
        ]
        return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)

    def divergence(self, velocity: Sequence[Tensor]) -> Tensor:
        """What flows out of every cell [1/s].

        Args:
            velocity: One component for each axis on its faces [m/s].

        Returns:
            Shape ``(*shape,)``.
        """
        parts = [component.diff(dim=axis) for axis, component in enumerate(velocity)]
        return torch.stack(parts).sum(0) / self.spacing

    def gradient(self, field: Tensor, axis: int) -> Tensor:
        """Differences of cell values across the inner faces of an axis.

        Args:
            field: Cell values, shape ``(*shape,)``.
            axis: The axis.

        Returns:
            Shape ``(*face_shape,)`` without the two outer faces.
        """
        return field.diff(dim=axis) / self.spacing

    def check_velocity(self, velocity: Sequence[Tensor]) -> None:
        """Check the shapes of the components.

        Args:
            velocity: One component for each axis.

        Raises:
            ShapeError: If one has another shape than its faces.
        """
        if len(velocity) != self.axes:
            raise ShapeError(f"velocity: got {len(velocity)} components, expected {self.axes}")
        for axis, component in enumerate(velocity):
            if tuple(component.shape) != self.face_shape(axis):
                raise ShapeError(
                    f"velocity[{axis}]: got shape {tuple(component.shape)}, expected "
                    f"{self.face_shape(axis)}: one number for every face across axis {axis}"
                )

    def check_cells(self, name: str, field: Tensor) -> None:
        """Check the shape of cell values.

        Args:
            name: Name of the argument.
            field: The values.

        Raises:
            ShapeError: If it is not that of the grid.
            SettingsError: If they are not floating point.
        """
        if not isinstance(field, Tensor):
            raise ShapeError(
                f"{name}: got {type(field).__name__}, expected a tensor of shape {self.shape}; "
                "convert it with torch.as_tensor"
            )
        if tuple(field.shape) != self.shape:
            raise ShapeError(
                f"{name}: got shape {tuple(field.shape)}, expected {self.shape}, one number a cell"
            )
        if not field.is_floating_point():
            raise SettingsError(f"{name}: got {field.dtype}, expected floating-point numbers")
