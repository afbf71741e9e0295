r"""Natural gradient of an energy: steepest descent in function space, pulled back to parameters.

.. math:: (G + \lambda\, \bar g\, I)\,\delta = \nabla_\theta E, \qquad
          \theta \leftarrow \theta - \delta,

with the Gram matrix G of the tangent space, its mean diagonal :math:`\bar g`, and a damping that
falls after steps which the quadratic model foresees well and rises after others, as in Levenberg
and Marquardt. With the H1 metric and :math:`\lambda = 0`, :math:`J\delta` is the H1 projection of
:math:`(I - \Delta)^{-1}\mathcal{D}E` on what the network can follow.

Reference: Müller and Zeinhofer (2023), Achieving high accuracy with PINNs via energy natural
gradients; Marwah, Lipton, Lu and Risteski (2023) for the descent that it projects.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import NonFiniteError, check_choice
from solvers.linear import CallableOperator, ConjugateGradient, Jacobi, linear_solve
from solvers.pinn.variational._functional import Form, Functional, Metric

__all__ = ["EnergyNaturalGradient", "GramSolver"]

GramSolver: TypeAlias = Literal["auto", "dense", "cg"]

_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-14, 1e6
_TRIALS = 12
_MOST_DENSE = 2500
"""Parameters up to which the Gram matrix is formed and factorised."""

_CG_TOLERANCE, _CG_ITERATIONS = 1e-4, 300
_ROUNDING = 1e-14
_GROWTH = 2.0
"""Growth of the equation's residual in a step on sampled points that is still taken."""


class EnergyNaturalGradient:
    """The iteration, one step at a time, as `solvers.training.Search` takes it.

    Args:
        functional: The energy.
        start: First parameters, shape ``(P,)``.
        metric: ``"h1"`` or ``"energy"``.
        form: ``"weak"``: steps are taken if the energy on the rule falls, and damped less and less.
            ``"strong"``, for sampled points: steps are taken unless the residual of the equation
            doubles, and the damping stays above 1e-2, which averages over draws of points.
        solver: ``"dense"`` forms the Gram matrix, ``"cg"`` multiplies by the rows of the tangent
            space; ``"auto"`` is dense up to 2500 parameters.

    Attributes:
        loss: Energy at the present point.
        damping: Of the next step.
        failures: Steps in a row that found nothing.
        evaluations: Energies and gradients that were computed.

    Cost: ``N (1 + d) P^2`` multiplications a step and a Cholesky factorisation, or with ``"cg"``
    ``2 N (1 + d) P`` an iteration and as many numbers of memory.
    """

    def __init__(
        self,
        functional: Functional,
        start: Float[Tensor, " P"],
        *,
        metric: Metric = "h1",
        form: Form = "weak",
        solver: GramSolver = "auto",
    ) -> None:
        check_choice("metric", metric, ("h1", "energy"))
        check_choice("form", form, ("weak", "strong"))
        check_choice("solver", solver, ("auto", "dense", "cg"))
        self._functional, self._metric, self._form = functional, metric, form
        is_dense = functional.parameter_count <= _MOST_DENSE
        self._is_dense = is_dense if solver == "auto" else solver == "dense"
        self.point = start.detach().to(torch.float64).clone()
        self.damping = _FIRST_DAMPING
        self.steps = self.failures = self.evaluations = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in that the energy has changed, for example its points.

        Raises:
            NonFiniteError: If it is not finite at the present point.
        """
        self.evaluations += 1
        self.loss = self._functional.energy(self.point)
        if not math.isfinite(self.loss):
            raise NonFiniteError(
                f"energy is {self.loss} at step {self.steps}, expected a finite number; look for "
                "division by zero in the density, or start from other parameters"
            )

    def step(self) -> bool:
        """Take one step.

        Returns:
            Whether one was found.
        """
        gradient = self._functional.gradient(self.point, self._form)
        self.evaluations += 1
        if not bool(torch.isfinite(gradient).all()):
            self.failures += 1
            return False
        system = self._system()
        for _ in range(_TRIALS):
            step = system.solve(gradient, self.damping)
            if step is not None and self._is_taken(gradient, step):
                self.steps += 1
                self.failures = 0
                return True
            self.damping = min(4 * self.damping, _MOST_DAMPING)
        self.failures += 1
        return False

    def _system(self) -> _Dense | _Rows:
        functional, point = self._functional, self.point
        if self._is_dense:
            return _Dense(functional.gram(point, self._metric))
        return _Rows(list(functional.weighted_rows(point, self._metric)))

    def _is_taken(self, gradient: Tensor, step: Tensor) -> bool:
        point = self.point - step
        self.evaluations += 1
        if self._form == "weak":
            return self._is_lower(point, 0.5 * float(gradient @ step))
        return self._is_safe(point)

    def _is_lower(self, point: Tensor, foreseen: float) -> bool:
        """Accept what lowers the energy, and damp by how well the model foresaw it."""
        energy = self._functional.energy(point)
        if not energy < self.loss:
            return False
        # below rounding of the energy the share says nothing, and is taken for good
        is_seen = foreseen > _ROUNDING * abs(self.loss)
        share = (self.loss - energy) / foreseen if is_seen else 1.0
        if share > 0.5:
            self.damping = max(self.damping / 2, _LEAST_DAMPING)
        elif share < 0.1:
            self.damping = min(2 * self.damping, _MOST_DAMPING)
        self.point, self.loss = point, energy
        return True

    def _is_safe(self, point: Tensor) -> bool:
        """Accept what does not blow the equation up: a sampled energy is too noisy to compare."""
        before, after = map(self._functional.equation_size, (self.point, point))
        if not after < _GROWTH * before:
            return False
        self.damping = max(self.damping / 2, _FIRST_DAMPING)
        self.point, self.loss = point, self._functional.energy(point)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the energy."""
        return {
            "point": self.point.clone(),
            "numbers": [self.loss, self.damping],
            "counts": [self.steps, self.failures, self.evaluations],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the energy must be what it was."""
        self.point = state["point"].clone()
        self.loss, self.damping = state["numbers"]
        self.steps, self.failures, self.evaluations = state["counts"]


class _Dense:
    """The Gram matrix, factorised anew for each damping."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix, self._mean = matrix, float(matrix.diagonal().abs().mean())

    def solve(self, gradient: Tensor, damping: float) -> Tensor | None:
        """The damped step; None where the damped matrix is not positive definite."""
        damped = self._matrix.clone()
        damped.diagonal().add_(damping * self._mean)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info):
            return None
        solved: Tensor = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        return solved if bool(torch.isfinite(solved).all()) else None


class _Rows:
    """The tangent space itself: products with its rows, conjugate gradients."""

    def __init__(self, parts: list[tuple[Tensor, Tensor]]) -> None:
        self._parts = parts
        diagonal = sum((left * right).sum(1) for left, right in parts)
        self._diagonal = torch.as_tensor(diagonal)
        self._mean = float(self._diagonal.abs().mean())

    def solve(self, gradient: Tensor, damping: float) -> Tensor | None:
        """The damped step, to a relative residual of 1e-4."""
        shift = torch.tensor(damping * self._mean, dtype=torch.float64)

        def product(x: Tensor, shift: Tensor) -> Tensor:
            total = shift * x
            for left, right in self._parts:
                total = total + (x @ right) @ left.T
            return total

        operator = CallableOperator(
            product, (len(gradient),), {"shift": shift}, is_symmetric=True,
            diagonal=lambda shift: self._diagonal + shift,
        )  # fmt: skip
        method = ConjugateGradient(
            preconditioner=Jacobi(), rtol=_CG_TOLERANCE, max_iterations=_CG_ITERATIONS
        )
        solved = linear_solve(operator, gradient, method, on_failure="mask").value
        is_descent = bool(torch.isfinite(solved).all()) and float(solved @ gradient) > 0
        return solved if is_descent else None
