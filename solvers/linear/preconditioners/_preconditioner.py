"""What a preconditioner is: settings that, once prepared, apply an approximate inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor

from solvers.linear._prepared import Outcome
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._trail import Directions, Trail

__all__ = ["Identity", "Preconditioner", "PreparedPreconditioner"]


class PreparedPreconditioner(ABC):
    """An approximate inverse of one operator.

    Attributes:
        label: What it is, in words.
        is_worn: Whether it has parts that were made for an earlier operator.
    """

    label = ""
    is_worn = False

    @abstractmethod
    def apply(self, r: Tensor) -> Tensor:
        """Approximate ``A^-1 r`` for ``r`` of shape ``(..., *domain)``.

        Linear in ``r``, and symmetric positive definite if ``A`` is.
        """

    def update(self, operator: LinearOperator) -> PreparedPreconditioner | None:
        """Go on to an operator of the same structure whose numbers have moved, if that is cheap.

        What is costly to find may be kept as it is (`is_worn`): the caller watches the rate of its
        solves and prepares anew where it falls. This one keeps serving the old operator, though
        its memory may have moved to the new one and must then be made again.

        Args:
            operator: The new operator, without gradients.

        Returns:
            The preconditioner of the new operator, or None if it must be prepared.
        """
        return None

    def conjugate_gradient(
        self,
        b: Tensor,
        x0: Tensor | None,
        *,
        rtol: float,
        max_iterations: int,
        patience: int | None = None,
    ) -> Outcome | None:
        """Run the whole preconditioned conjugate gradient iteration at once, if it can.

        Args:
            b: Right-hand sides.
            x0: First guess or None.
            rtol: Relative tolerance.
            max_iterations: Limit of the iterations.
            patience: Limit of the iterations that the observed rate foresees.

        Returns:
            The outcome, or None if the caller should iterate.
        """
        return None

    def recycled_conjugate_gradient(
        self,
        b: Tensor,
        x0: Tensor | None,
        *,
        rtol: float,
        max_iterations: int,
        directions: Directions | None,
        kept: int,
        keeps_vectors: bool,
    ) -> tuple[Outcome, Trail] | None:
        """As `conjugate_gradient`, with directions of earlier solves in every step, if it can.

        Args:
            b: One right-hand side.
            x0: First guess or None.
            rtol: Relative tolerance.
            max_iterations: Limit of the iterations.
            directions: What earlier solves left; it is not used where it does not fit.
            kept: Number of steps to keep.
            keeps_vectors: Whether to keep their vectors too, not only their coefficients.

        Returns:
            The outcome and the first steps, or None if the caller should iterate.
        """
        return None


@runtime_checkable
class Preconditioner(Protocol):
    """Settings of a preconditioner."""

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Do everything that does not depend on the residual."""
        ...


class Identity(PreparedPreconditioner):
    """No preconditioning."""

    def apply(self, r: Tensor) -> Tensor:
        """Give the residual back."""
        return r
