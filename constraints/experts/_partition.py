"""Space-time cut into parts, one for each expert."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import SettingsError, check_count, check_shape

__all__ = ["Interface", "Partition"]

_SLACK = 1e-9
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, slots=True)
class Interface:
    """A face that two boxes share.

    Attributes:
        first: Expert below.
        second: Expert above.
        axis: Axis that it is normal to.
        lower: Its lowest corner, shape ``(d,)``.
        upper: Its highest corner; equal to ``lower`` along ``axis``.
        width: Width of the boxes along ``axis``, the mean of the two.
    """

    first: int
    second: int
    axis: int
    lower: Tensor
    upper: Tensor
    width: float

    def points(self, count: int) -> Tensor:
        """About ``count`` points of a regular grid on it, shape ``(n, d)``."""
        d = len(self.lower)
        each = max(2, math.ceil(count ** (1 / max(d - 1, 1))))
        t = (torch.arange(each, dtype=torch.float64) + 0.5) / each
        axes = [t if j != self.axis else t[:1] * 0 for j in range(d)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
        return self.lower + grid * (self.upper - self.lower)


class Partition:
    """Which expert is responsible where; made by `boxes` or `from_index`.

    Attributes:
        experts: Number of parts ``K``.
        dimension: Number of coordinates ``d``.
        interfaces: Faces between boxes; none for an index map.
    """

    def __init__(
        self,
        experts: int,
        dimension: int,
        index: Callable[[Tensor], Tensor],
        *,
        edges: Sequence[Tensor] = (),
        overlap: float = 0.0,
        periodic: Sequence[int] = (),
    ):
        self.experts, self.dimension = experts, dimension
        self._index, self._edges, self._overlap = index, tuple(edges), overlap
        self._periodic = frozenset(periodic)
        self.interfaces = tuple(self._find_interfaces())

    @staticmethod
    def boxes(
        lower: Sequence[float],
        upper: Sequence[float],
        counts: Sequence[int],
        *,
        overlap: float = 0.0,
        periodic: Sequence[int] = (),
    ) -> Partition:
        """Cut a box into equal boxes.

        Args:
            lower: Lowest corner of the domain.
            upper: Highest corner.
            counts: Number of boxes along each axis. Experts are numbered with the last axis first.
            overlap: By how much of its width a box reaches into its neighbours, 0 to 0.5: there
                both experts see the points, and a blended field passes from one to the other.
            periodic: Axes along which the last box also meets the first; functions of the basis
                must be periodic along them. Boxes that overlap do not do so there.

        Raises:
            SettingsError: If the corners, counts or overlap make no boxes, or an axis is unknown.

        Example:
            >>> partition = Partition.boxes([0.0, 0.0], [1.0, 2.0], [2, 1])
            >>> partition.owner(torch.tensor([[0.2, 1.0], [0.8, 1.0]])).tolist()
            [0, 1]
            >>> len(partition.interfaces)
            1
        """
        for name, corner in (("lower", lower), ("upper", upper), ("counts", counts)):
            if not hasattr(corner, "__len__"):
                raise SettingsError(
                    f"{name}: got {corner!r}, expected a list with an entry for each coordinate"
                )
        d = len(lower)
        if not (d and len(upper) == len(counts) == d):
            raise SettingsError(
                f"lower, upper, counts: got {d}, {len(upper)} and {len(counts)} entries, expected "
                "one for each coordinate"
            )
        for j, (a, b, n) in enumerate(zip(lower, upper, counts, strict=True)):
            check_count(f"counts[{j}]", n)
            if not (b > a and math.isfinite(b - a)):
                raise SettingsError(
                    f"axis {j}: got {n} boxes from {a} to {b}, expected finite corners with "
                    "lower < upper"
                )
        if not 0 <= overlap < 0.5:
            raise SettingsError(f"overlap: got {overlap}, expected 0 to below 0.5 of a width")
        if not set(periodic) <= set(range(d)):
            raise SettingsError(f"periodic: got {tuple(periodic)}, expected axes below {d}")
        edges = [
            torch.linspace(a, b, n + 1, dtype=torch.float64)
            for a, b, n in zip(lower, upper, counts, strict=True)
        ]

        index = functools.partial(_cell, edges)
        return Partition(
            math.prod(counts), d, index, edges=edges, overlap=overlap, periodic=periodic
        )

    @staticmethod
    def from_index(index: Callable[[Tensor], Tensor], experts: int, dimension: int) -> Partition:
        """Assign points by any rule, for example at random.

        Args:
            index: From points ``(n, d)`` to numbers of experts ``(n,)``.
            experts: Number of experts.
            dimension: Number of coordinates.

        Returns:
            A partition without interfaces, so without continuity and blending.

        Raises:
            SettingsError: If a number is no positive whole one.
        """
        check_count("experts", experts)
        check_count("dimension", dimension)
        return Partition(experts, dimension, index)

    def owner(self, points: Tensor) -> Tensor:
        """Expert of each point.

        Args:
            points: Shape ``(n, d)``.

        Returns:
            Numbers of experts, shape ``(n,)``.

        Raises:
            ShapeError: If the points have another number of coordinates.
            SettingsError: If a point is outside all boxes, or an index is none of an expert.
        """
        points = points.detach().to(torch.float64)
        check_shape("points", points, "n d", sizes={"d": self.dimension})
        for j, edge in enumerate(self._edges):
            slack = _SLACK * float(edge[-1] - edge[0])
            outside = ~((points[:, j] >= edge[0] - slack) & (points[:, j] <= edge[-1] + slack))
            if bool(outside.any()):
                where = int(outside.nonzero()[0])
                raise SettingsError(
                    f"points[{where}]: got {points[where].tolist()}, expected coordinate {j} from "
                    f"{float(edge[0])} to {float(edge[-1])}"
                )
        number = self._index(points)
        kind = getattr(number, "dtype", type(number).__name__)
        if kind not in _WHOLE or number.shape != points.shape[:1]:
            raise SettingsError(
                f"index: gave {kind} of shape {tuple(getattr(number, 'shape', ()))}, expected "
                f"whole numbers in a tensor of shape ({len(points)},), the expert of each point; "
                "convert them with .long()"
            )
        number = number.long()
        if len(number) and not 0 <= int(number.min()) <= int(number.max()) < self.experts:
            raise SettingsError(
                f"index: gave {int(number.min())} to {int(number.max())}, expected 0 to "
                f"{self.experts - 1}"
            )
        return number

    def members(self, points: Tensor) -> list[Tensor]:
        """Numbers of the points that each expert sees, in its overlap with neighbours as well."""
        owner = self.owner(points)
        if not self._overlap:
            return [(owner == k).nonzero()[:, 0] for k in range(self.experts)]
        weights = self._windows(points.detach().to(torch.float64))
        return [(weights[:, k] > 0).nonzero()[:, 0] for k in range(self.experts)]

    def blend(self, points: Tensor) -> Tensor:
        """Partition of unity: weights of the experts at points, twice differentiable in them.

        Returns:
            Shape ``(n, K)``, rows sum to one.

        Raises:
            SettingsError: If there is no overlap to blend in.
        """
        if not self._overlap:
            raise SettingsError("blend: the partition has no overlap; make boxes with overlap=0.1")
        self.owner(points)
        return self._windows(points)

    def describe(self, expert: int) -> str:
        """Where an expert is, for messages."""
        if not self._edges:
            return f"expert {expert}"
        cells = self._cells()[expert]
        ranges = [
            f"{float(edge[i]):g} to {float(edge[i + 1]):g}"
            for edge, i in zip(self._edges, cells, strict=True)
        ]
        return f"expert {expert} ({', '.join(ranges)})"

    def _cells(self) -> list[tuple[int, ...]]:
        return list(itertools.product(*(range(len(edge) - 1) for edge in self._edges)))

    def _windows(self, points: Tensor) -> Tensor:
        total = points.new_ones(len(points), 1)
        for j, edge in enumerate(self._edges):
            x = points[:, j, None]
            reach = 2 * self._overlap * (edge[1:] - edge[:-1])
            steps = [_smooth((x - edge[i]) / reach[i] + 0.5) for i in range(1, len(edge) - 1)]
            one, zero = torch.ones_like(x), torch.zeros_like(x)
            rising = torch.cat([one, *steps, zero], 1)
            # A step up at each inner edge; a window is the difference of two.
            own = rising[:, :-1] - rising[:, 1:]
            total = (total[:, :, None] * own[:, None, :]).flatten(1)
        return total

    def _find_interfaces(self) -> list[Interface]:
        if not self._edges:
            return []
        cells = self._cells()
        number = {cell: k for k, cell in enumerate(cells)}
        found = []
        for cell, k in number.items():
            for axis, edge in enumerate(self._edges):
                above = tuple(i + (j == axis) for j, i in enumerate(cell))
                if axis in self._periodic and len(edge) > 2:
                    above = (*above[:axis], above[axis] % (len(edge) - 1), *above[axis + 1 :])
                if above not in number:
                    continue
                lower = torch.stack([e[i] for e, i in zip(self._edges, cell, strict=True)])
                upper = torch.stack([e[i + 1] for e, i in zip(self._edges, cell, strict=True)])
                lower[axis] = upper[axis]
                width = float(edge[1] - edge[0])
                found.append(Interface(k, number[above], axis, lower, upper, width))
        return found


def _cell(edges: Sequence[Tensor], points: Tensor) -> Tensor:
    """Number of the box that each point is in, the last axis first."""
    number = torch.zeros(len(points), dtype=torch.int64)
    for j, edge in enumerate(edges):
        cell = torch.searchsorted(edge, points[:, j].contiguous(), right=True) - 1
        number = number * (len(edge) - 1) + cell.clamp(0, len(edge) - 2)
    return number


def _smooth(t: Tensor) -> Tensor:
    """A step from 0 to 1, twice differentiable, with ``s(t) + s(1 - t) = 1``."""
    t = t.clamp(0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)
