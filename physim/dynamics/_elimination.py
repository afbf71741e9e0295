"""Sparse elimination on generic scalars: the pattern is fixed, the numbers are not.

Rows are eliminated from the last degree of freedom to the first, leaves before roots, without
pivoting. On a tree this order makes no fill; contacts between links couple branches, and the fill
they cause is found symbolically once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solvers.kernels import scalar as sc

Scalar = Any
Entries = dict[tuple[int, int], Scalar]


@dataclass(frozen=True, slots=True)
class Elimination:
    """Symbolic factorisation of a square matrix with a symmetric pattern.

    Attributes:
        size: Number of rows.
        below: For each pivot, the rows of smaller index that it touches.
    """

    size: int
    below: tuple[tuple[int, ...], ...]

    @property
    def pattern(self) -> tuple[tuple[int, int], ...]:
        """All places that may be non-zero after elimination, in row order."""
        places = {(i, i) for i in range(self.size)}
        for pivot, rows in enumerate(self.below):
            places |= {(pivot, row) for row in rows} | {(row, pivot) for row in rows}
        return tuple(sorted(places))

    def factor(self, entries: Mapping[tuple[int, int], Scalar]) -> Entries:
        """Factor in place of a copy: unit factors off the pivots, their reciprocals on them."""
        a = {place: entries.get(place, 0) for place in self.pattern}
        for k in range(self.size - 1, -1, -1):
            inverse = sc.reciprocal(a[k, k])
            a[k, k] = inverse
            for i in self.below[k]:
                a[i, k] = sc.multiply(a[i, k], inverse)
            for i in self.below[k]:
                for j in self.below[k]:
                    a[i, j] = sc.subtract(a[i, j], sc.multiply(a[i, k], a[k, j]))
        return a

    def solve(self, factor: Entries, right: Sequence[Scalar]) -> list[Scalar]:
        """Solve with `factor`'s result."""
        x = list(right)
        for k in range(self.size - 1, -1, -1):
            for i in self.below[k]:
                x[i] = sc.subtract(x[i], sc.multiply(factor[i, k], x[k]))
        for k in range(self.size):
            value = x[k]
            for j in self.below[k]:
                value = sc.subtract(value, sc.multiply(factor[k, j], x[j]))
            x[k] = sc.multiply(value, factor[k, k])
        return x

    def solve_transposed(self, factor: Entries, right: Sequence[Scalar]) -> list[Scalar]:
        """Solve with the transposed matrix."""
        x = list(right)
        for k in range(self.size - 1, -1, -1):
            x[k] = sc.multiply(x[k], factor[k, k])
            for j in self.below[k]:
                x[j] = sc.subtract(x[j], sc.multiply(factor[k, j], x[k]))
        for k in range(self.size):
            for i in self.below[k]:
                x[k] = sc.subtract(x[k], sc.multiply(factor[i, k], x[i]))
        return x


def analyse(size: int, couplings: Iterable[Sequence[int]]) -> Elimination:
    """Find the fill of a matrix whose pattern is a union of cliques.

    Args:
        size: Number of rows.
        couplings: Sets of rows that couple with each other.
    """
    below: list[set[int]] = [set() for _ in range(size)]
    for clique in couplings:
        for i in clique:
            below[i] |= {j for j in clique if j < i}
    for k in range(size - 1, -1, -1):
        for i in below[k]:
            below[i] |= {j for j in below[k] if j < i}
    return Elimination(size, tuple(tuple(sorted(rows)) for rows in below))
