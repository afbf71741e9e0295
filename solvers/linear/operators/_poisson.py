r"""Poisson's equation and diffusion on a regular grid, without a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.core import SettingsError, ShapeError
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._regions import ConstantRegions
from solvers.linear.operators._stencil import apply_stencil, coupling_sum, face_neighbours
from solvers.linear.operators._written import Facts

if TYPE_CHECKING:
    from solvers.linear.operators._operator import NullSpace

__all__ = ["PoissonOperator"]


class PoissonOperator(LinearOperator):
    r"""The finite-volume operator of :math:`-\nabla\cdot(\beta\nabla x) + m x` in 1 to 3 axes.

    .. math:: (A x)_i = (e_i + m_i) x_i + \sum_{\text{faces } ij} c_{ij} (x_i - x_j)

    with couplings :math:`c`, the conductance :math:`e` to cells of known value, and the mass
    :math:`m`. It is symmetric and positive semidefinite. Cells where all of these are zero (solids,
    air) are no unknowns: ``b`` is not read there and ``x`` is zero. Regions of fluid closed by
    walls, with neither open air nor mass, leave ``x`` free by a constant: solves need a right-hand
    side of zero sum there and give the solution of zero mean.

    Make one with :meth:`from_cells`, or from couplings that you know.

    Args:
        couplings: For each axis the couplings of cell ``i`` with ``i + 1``, zero or more, shape
            ``(..., *grid)`` with one entry less along the axis, or as many for a periodic axis.
        boundary: Conductance to known values, zero or more, shape ``(..., *grid)``; the grid is
            the last axes, as many as there are couplings.
        mass: Mass term, zero or more, same shape; zero by default.
        source: What the known values and fluxes add to the right-hand side: solve
            ``A x = b + A.source``.

    Raises:
        ShapeError: If the shapes do not fit together.

    Example:
        >>> import torch
        >>> cells = torch.zeros(4, 4, 6, dtype=torch.long)
        >>> cells[..., -1] = 2
        >>> A = PoissonOperator.from_cells(cells)
        >>> float((A @ torch.ones(4, 4, 6, dtype=torch.float64)).sum())
        16.0
    """

    def __init__(
        self,
        couplings: Sequence[Float[Tensor, "..."]],
        boundary: Float[Tensor, "..."],
        mass: Float[Tensor, "..."] | None = None,
        *,
        source: Float[Tensor, "..."] | None = None,
    ):
        axes = len(couplings)
        if not 1 <= axes <= 3 or boundary.ndim < axes:
            raise ShapeError(
                f"couplings: got {axes} axes for a boundary of shape {tuple(boundary.shape)}, "
                "expected 1 to 3, as many as the grid has"
            )
        self.couplings = tuple(couplings)
        self.boundary = boundary
        self.mass = mass
        self.source = torch.zeros_like(boundary) if source is None else source
        for axis, coupling in enumerate(self.couplings):
            self._check_coupling(axis, coupling)
        if mass is not None and tuple(mass.shape[mass.ndim - axes :]) != self.domain:
            raise ShapeError(f"mass: got shape {tuple(mass.shape)}, expected (..., *{self.domain})")
        self._facts = Facts()

    @classmethod
    def from_cells(
        cls,
        cells: Int[Tensor, "*grid"] | np.ndarray[Any, Any],
        *,
        spacing: float | Sequence[float] = 1.0,
        density: Float[Tensor, "..."] | None = None,
        coefficient: Float[Tensor, "..."] | None = None,
        values: Float[Tensor, "..."] | float | None = None,
        fluxes: Sequence[Float[Tensor, "..."] | None] | None = None,
        mass: Float[Tensor, "..."] | float | None = None,
        periodic: bool | Sequence[bool] = False,
        outside: int | Sequence[tuple[int, int]] = 1,
        dtype: torch.dtype | None = None,
    ) -> Self:
        r"""Build the operator of a scene of fluid, solid and open air.

        Between fluid cells the face coefficient is the harmonic mean of the two; a face to a solid
        is a wall (no flux, unless ``fluxes`` says otherwise); a face to open air sees the known
        value at the centre of the air cell.

        Args:
            cells: 0 fluid, 1 solid, 2 open air; shape of the grid, 1 to 3 axes.
            spacing: Size of a cell [m], one number or one for each axis.
            density: :math:`\rho = 1/\beta` of the cells, shape ``(..., *grid)``; 1 by default.
            coefficient: :math:`\beta` instead of the density.
            values: Known values in air cells, a number or shape ``(..., *grid)``; 0 by default. A
                number also holds for the air outside.
            fluxes: Known flux :math:`\beta\,\partial x/\partial n` through walls, for each axis
                None or one entry for every face, shape ``(..., *grid)`` with one more along the
                axis; positive where ``x`` grows along the axis.
            mass: :math:`m` of the cells, a number or shape ``(..., *grid)``; for a step of implicit
                diffusion one over the timestep.
            periodic: Whether the axes close on themselves.
            outside: What lies beyond the first and last cells of each axis: 1 solid, 2 air; one
                number for all sides or a pair for each axis.
            dtype: Of the numbers; by default that of the first tensor given, else float64.

        Returns:
            The operator; its ``source`` holds what known values and fluxes add to ``b``.

        Raises:
            ShapeError: If a shape does not fit the grid.
            SettingsError: If a cell has another number, there is no fluid, or both density and
                coefficient are given.

        Example:
            >>> A = PoissonOperator.from_cells(torch.zeros(8, 8), outside=2, spacing=0.1)
            >>> A.domain
            (8, 8)
        """
        from solvers.linear.operators._cells import assemble

        parts = assemble(
            cells,
            spacing=spacing,
            density=density,
            coefficient=coefficient,
            values=values,
            fluxes=fluxes,
            mass=mass,
            periodic=periodic,
            outside=outside,
            dtype=dtype,
        )
        return cls(parts.couplings, parts.boundary, parts.mass, source=parts.source)

    def _check_coupling(self, axis: int, coupling: Tensor) -> None:
        expected = list(self.domain)
        size = expected[axis]
        shape = list(coupling.shape[coupling.ndim - len(expected) :])
        for faces in (size - 1, size):
            expected[axis] = faces
            if shape == expected:
                return
        raise ShapeError(
            f"couplings[{axis}]: got shape {tuple(coupling.shape)} for a grid of {self.domain}, "
            f"expected {size - 1} faces along axis {axis}, or {size} if it is periodic"
        )

    @property
    def domain(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return tuple(self.boundary.shape[self.boundary.ndim - len(self.couplings) :])

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of the coefficients, broadcast."""
        axes = len(self.couplings)
        shapes = [tensor.shape[: tensor.ndim - axes] for tensor in self.coefficients.values()]
        return tuple(torch.broadcast_shapes(*shapes))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes close on themselves."""
        axes = len(self.couplings)
        return tuple(
            coupling.shape[axis - axes] == self.domain[axis]
            for axis, coupling in enumerate(self.couplings)
        )

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """``coupling0`` and so on for each axis, ``boundary`` and, if there is one, ``mass``."""
        named = {f"coupling{axis}": tensor for axis, tensor in enumerate(self.couplings)}
        named["boundary"] = self.boundary
        return named if self.mass is None else {**named, "mass": self.mass}

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same grid with other numbers."""
        couplings = [coefficients[f"coupling{axis}"] for axis in range(len(self.couplings))]
        boundary = coefficients["boundary"]
        source = self.source.to(device=boundary.device, dtype=boundary.dtype)
        return type(self)(couplings, boundary, coefficients.get("mass"), source=source)

    @property
    def is_symmetric(self) -> bool:
        """Always."""
        return True

    @property
    def excess(self) -> Tensor:
        """Boundary conductance and mass together."""
        return self.boundary if self.mass is None else self.boundary + self.mass

    def apply(self, x: Tensor) -> Tensor:
        """Apply the stencil."""
        return apply_stencil(x, self.couplings, self.excess)

    def pull_back(self, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Gradients of ``<y, A x>``: products of differences across faces, ``y x`` in cells."""
        slopes = {}
        for axis, coupling in enumerate(self.couplings):
            place = axis - len(self.couplings)
            x_low, x_high = face_neighbours(x, place, coupling.shape[place])
            y_low, y_high = face_neighbours(y, place, coupling.shape[place])
            slopes[f"coupling{axis}"] = (y_low - y_high) * (x_low - x_high)
        slopes["boundary"] = slopes["mass"] = y * x
        shapes = {name: tensor.shape for name, tensor in self.coefficients.items()}
        return {name: slopes[name].sum_to_size(shape) for name, shape in shapes.items()}

    def transpose(self) -> LinearOperator:
        """The operator itself."""
        return self

    def diagonal(self) -> Tensor:
        """Excess and couplings of every cell."""
        excess = self.excess
        return excess + coupling_sum(self.couplings, excess)

    @property
    def active(self) -> Bool[Tensor, "..."]:
        """Which cells are unknowns."""
        return self._facts.find(
            "active", self.coefficients.values(), lambda: self.diagonal().detach() > 0
        )

    def mask(self, x: Tensor) -> Tensor:
        """Set ``x`` to zero where there is no unknown."""
        return torch.where(self.active, x, 0.0)

    def null_space(self) -> NullSpace | None:
        """One constant for each closed region without open air and mass."""
        return self._facts.find(
            "null space",
            self.coefficients.values(),
            lambda: ConstantRegions.find(
                self.couplings, self.excess.detach(), self.active, self.domain
            ),
        )

    def check(self) -> None:
        """Check that the numbers are finite, not negative, and leave an unknown.

        Raises:
            NonFiniteError: If a coefficient is NaN or infinite.
            SettingsError: If one is negative, or there is no unknown at all.
        """
        super().check()
        for name, tensor in self.coefficients.items():
            if tensor.numel() and float(tensor.detach().amin()) < 0:
                raise SettingsError(
                    f"{name}: the least entry is {float(tensor.detach().amin()):.3g}, expected "
                    "zero or more; look at the density, the mass and the spacing"
                )
        if not bool(self.active.any()):
            raise SettingsError(
                "PoissonOperator: no cell has a neighbour, a known value or mass, so there is "
                "nothing to solve; look at cells (0 is fluid)"
            )

    def to_scipy(self) -> Any:
        """The matrix over all cells; rows of cells that are no unknowns are empty."""
        self._check_single("to_scipy")
        import scipy.sparse

        index = np.arange(self.size).reshape(self.domain)
        if self.dtype not in (torch.float32, torch.float64):
            return self.to(dtype=torch.float32).to_scipy()
        diagonal = self.diagonal().detach().cpu().numpy().ravel()
        inner = np.flatnonzero(diagonal)
        rows, columns, entries = [inner], [inner], [diagonal[inner]]
        for axis, coupling in enumerate(self.couplings):
            low = np.take(index, np.arange(coupling.shape[axis]), axis)
            high = np.take(np.roll(index, -1, axis), np.arange(coupling.shape[axis]), axis)
            numbers = coupling.detach().cpu().numpy()
            there = numbers > 0
            rows += [low[there], high[there]]
            columns += [high[there], low[there]]
            entries += [-numbers[there]] * 2
        placed = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
        return scipy.sparse.coo_array(placed, shape=(self.size, self.size)).tocsr()
