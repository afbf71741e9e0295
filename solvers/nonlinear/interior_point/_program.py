"""A batch of cone programs and a point that solves it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ConeProgramData", "Iterate"]


@dataclass(frozen=True, slots=True, eq=False)
class ConeProgramData:
    r"""Minimise :math:`\tfrac12 x^\top Q x + q^\top x` so that :math:`Ax = b`, :math:`h - Gx \in K`.

    The cone K is an orthant followed by second-order cones :math:`s_0 \ge |s_{1:}|`. A tensor
    without batch axis is shared by all items.

    Attributes:
        Q: Hessian, positive semidefinite; only its symmetric part counts.
        q: Slope.
        G: Rows of the cones.
        h: Right-hand sides of the cones.
        A: Rows of the equalities; ``(0, n)`` without.
        b: Right-hand sides of the equalities.
        cones: Sizes of the second-order cones, which take the last rows of G; each 2 or more.
        batch: Number of items.
    """

    Q: Float[Tensor, "*B n n"]
    q: Float[Tensor, "*B n"]
    G: Float[Tensor, "*B m n"]
    h: Float[Tensor, "*B m"]
    A: Float[Tensor, "*B p n"]
    b: Float[Tensor, "*B p"]
    cones: tuple[int, ...]
    batch: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Unknowns, equalities, cone rows, items."""
        return self.q.shape[-1], self.b.shape[-1], self.h.shape[-1], self.batch

    def select(self, items: Tensor) -> ConeProgramData:
        """The programs of some items.

        Args:
            items: Their indices, shape ``(k,)``.
        """

        def pick(tensor: Tensor, axes: int) -> Tensor:
            return tensor[items] if tensor.ndim > axes else tensor

        return ConeProgramData(
            pick(self.Q, 2),
            pick(self.q, 1),
            pick(self.G, 2),
            pick(self.h, 1),
            pick(self.A, 2),
            pick(self.b, 1),
            self.cones,
            len(items),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Iterate:
    """Where a solve ended.

    Attributes:
        x: Unknowns.
        y: Multipliers of the equalities.
        z: Multipliers of the cones.
        s: Slacks ``h - Gx``.
        status: :class:`solvers.core.Status` of each item.
        iterations: Steps of each item.
        residual: Largest violation of the optimality conditions, relative to the data.
    """

    x: Float[Tensor, "B n"]
    y: Float[Tensor, "B p"]
    z: Float[Tensor, "B m"]
    s: Float[Tensor, "B m"]
    status: Int[Tensor, "B"]
    iterations: Int[Tensor, "B"]
    residual: Float[Tensor, "B"]
