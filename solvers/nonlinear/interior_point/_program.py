"""A batch of cone programs, before and after its solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ConeProgramData", "SolvedPrograms"]


class ConeProgramData(NamedTuple):
    r"""Minimise :math:`\tfrac12 x^\top Q x + q^\top x` with :math:`Ax = b`, :math:`h - Gx \in K`.

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


class SolvedPrograms(ABC):
    """A batch of programs after its solve.

    Attributes:
        data: The programs.
        x: Unknowns, not recorded: a graph that keeps the solve must not keep itself.
        status: :class:`solvers.core.Status` of each item.
        iterations: Steps of each item.
        residual: Largest violation of the optimality conditions, relative to the data.
        has_failures: Whether an item did not converge.
    """

    data: ConeProgramData
    x: Float[Tensor, "B n"]
    status: Int[Tensor, "B"]
    iterations: Int[Tensor, "B"]
    residual: Float[Tensor, "B"]
    has_failures: bool

    @property
    @abstractmethod
    def y(self) -> Float[Tensor, "B p"]:
        """Multipliers of the equalities."""

    @property
    @abstractmethod
    def z(self) -> Float[Tensor, "B m"]:
        """Multipliers of the cones."""

    @property
    @abstractmethod
    def s(self) -> Float[Tensor, "B m"]:
        """Slacks ``h - Gx``."""

    @abstractmethod
    def adjoint(self, cotangent: Float[Tensor, "B n"]) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right.

        Args:
            cotangent: Gradient of a loss with respect to x.

        Returns:
            Gradients with respect to q ``(B, n)``, h ``(B, m)`` and b ``(B, p)`` of each item;
            zero where the solve failed.
        """
