r"""Gauss-Newton on residuals whose Jacobian is given: damped, or along the natural gradient.

With residuals r of a loss :math:`\tfrac12\|r\|^2`, their Jacobian J and :math:`G = J^\top J`,

.. math:: \theta \leftarrow \theta - \eta\,(G + \lambda I)^{-1} J^\top r .

Where r samples a residual that is linear in its field, G is the Gram matrix of the energy's Hessian
on the tangent space of the network: the step is the energy natural gradient.

* damped: :math:`\eta = 1`, and :math:`\lambda` follows one of the tests of
  :class:`solvers.optim.GNS`; ``"nielsen"`` is Levenberg-Marquardt;
* ``"natural"``: :math:`\lambda` is the loss, or :math:`10^{-5}` where that is less, and
  :math:`\eta` is searched among powers of one half.

References: Müller and Zeinhofer (2023), Achieving high accuracy with PINNs via energy natural
gradient descent, section 3; Jnini, Vella and Zeinhofer (2024), Gauss-Newton natural gradient
descent for physics-informed neural networks; Nielsen (1999), Damping parameter in Marquardt's
method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import NonFiniteError, check_choice, check_positive
from solvers.optim._damped import DenseModel, LocalModel, Metric, ProductModel, RowModel
from solvers.optim._smoothness import Damping, DampingRule, StepReport

__all__ = ["GaussNewton"]

Linearize = Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]
"""Parameters to blocks of residuals ``(m,)`` with their Jacobians ``(m, P)``."""

_DENSE = 2000
_KEPT = 100_000_000
"""Numbers of a Jacobian that are kept; above, products take its blocks anew."""

_LARGEST_DAMPING = 1e-5
_SHORTEST = 2.0**-24


class GaussNewton:
    """The iteration, one step at a time, for :class:`solvers.training.Search`.

    Args:
        objective: Loss and gradient at a vector of parameters, float64.
        start: First vector, shape ``(P,)``; it is not changed.
        linearize: Takes the vector, gives blocks of residuals ``(m,)`` and their Jacobians
            ``(m, P)``; half the sum of squares of all is the loss.
        damping: ``"gain"``, ``"progress"`` and ``"nielsen"`` as :class:`GNS` has them, or
            ``"natural"``.
        gamma: First radius; for ``"nielsen"`` one over the first damping.
        solver: ``"dense"``, ``"cg"`` on products with the Jacobian, or ``"auto"``: dense where
            parameters or residuals are up to 2000.

    Attributes:
        loss: Loss at the present point.
        steps: Steps taken.
        evaluations: Evaluations of the loss.
        failures: Steps in a row, up to now, that found nothing.
        report: What the last step did.

    Raises:
        NonFiniteError: If the loss is not finite at the start.
        SettingsError: If a setting is unknown or not positive.

    Cost of a step: one Jacobian; its square and a Cholesky factor, or two products with it for each
    of at most 200 iterations of conjugate gradients; one loss and gradient a trial.

    Example:
        >>> def residuals(x):
        ...     return torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])
        >>> def jacobian(x):
        ...     return torch.tensor([[-1.0, 0.0], [-20 * x[0], 10.0]], dtype=torch.float64)
        >>> def objective(x):
        ...     return 0.5 * float(residuals(x).square().sum()), jacobian(x).T @ residuals(x)
        >>> start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        >>> blocks = lambda x: [(residuals(x), jacobian(x))]
        >>> search = GaussNewton(objective, start, linearize=blocks)
        >>> while search.loss > 1e-20:
        ...     assert search.step()
        >>> search.steps < 40
        True
    """

    def __init__(
        self,
        objective: Callable[[Tensor], tuple[float, Tensor]],
        start: Float[Tensor, " P"],
        *,
        linearize: Linearize,
        damping: Damping | Literal["natural"] = "gain",
        gamma: float = 1.0,
        solver: Literal["auto", "dense", "cg"] = "auto",
    ) -> None:
        check_choice("damping", damping, ("gain", "progress", "nielsen", "natural"))
        check_choice("solver", solver, ("auto", "dense", "cg"))
        check_positive("gamma", gamma)
        self._objective, self._linearize, self._solver = objective, linearize, solver
        self._x = start.detach().to("cpu", torch.float64).clone()
        self._rule: DampingRule | _HalvingRule = (
            _HalvingRule() if damping == "natural" else DampingRule(kind=damping, gamma=gamma)
        )
        self.steps = self.evaluations = self.failures = 0
        self.report: StepReport | None = None
        self.refresh()

    @property
    def point(self) -> Float[Tensor, " P"]:
        """Copy of the present point."""
        return self._x.clone()

    def refresh(self) -> None:
        """Take in that the objective has changed, for example its points.

        Raises:
            NonFiniteError: If loss or gradient are not finite at the present point.
        """
        self.loss, gradient = self._evaluate(self._x)
        if not (math.isfinite(self.loss) and bool(torch.isfinite(gradient).all())):
            raise NonFiniteError(
                f"loss is {self.loss} with gradient norm {float(gradient.norm())} at step "
                f"{self.steps}, expected finite numbers; try other initial parameters"
            )

    def step(self) -> bool:
        """Take one step.

        Returns:
            Whether the loss fell; otherwise the point is what it was.
        """

        def trial(step: Tensor) -> tuple[float, Callable[[], float]]:
            loss, gradient = self._evaluate(self._x + step)
            return loss, lambda: float(gradient.norm())

        self._rule, step, self.report = self._rule.search(self._model(), self.loss, trial)
        if step is None:
            self.failures += 1
            return False
        self._x, self.loss = self._x + step, self.report.loss
        self.steps, self.failures = self.steps + 1, 0
        return True

    def _evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        loss, gradient = self._objective(x)
        return float(loss), gradient

    def _model(self) -> LocalModel:
        """Take in the Jacobian block by block and choose how to solve with it."""
        size, metric = len(self._x), Metric()
        gradient = torch.zeros_like(self._x)
        kept: list[tuple[Tensor, Tensor]] = []
        numbers = 0
        for residuals, rows in self._linearize(self._x):
            gradient += rows.T @ residuals
            numbers += rows.numel()
            if numbers <= _KEPT:
                kept.append((residuals, rows))
        is_whole = numbers <= _KEPT
        count = numbers // size
        is_dense = is_whole and min(size, count) <= _DENSE
        if self._solver == "cg" or (self._solver == "auto" and not is_dense):
            blocks = kept if is_whole else None

            def product(v: Tensor) -> Tensor:
                result = torch.zeros_like(v)
                for _, rows in blocks or self._linearize(self._x):
                    result += rows.T @ (rows @ v)
                return result

            return ProductModel(gradient=gradient, metric=metric, product=product)
        taken = kept if is_whole else list(self._linearize(self._x))
        if count < size:
            return RowModel(
                gradient=gradient,
                metric=metric,
                rows=torch.cat([rows for _, rows in taken]),
                weights=torch.cat([residuals for residuals, _ in taken]),
            )
        gram = torch.zeros(size, size, dtype=torch.float64)
        for _, rows in taken:
            gram += rows.T @ rows
        return DenseModel(gradient=gradient, metric=metric, hessian=gram)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the objective."""
        return {
            "point": self.point,
            "loss": self.loss,
            "rule": self._rule.numbers(),
            "counts": [self.steps, self.evaluations, self.failures],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the objective must be what it was."""
        self._x, self.loss = state["point"].clone(), state["loss"]
        self._rule = replace(self._rule, **state["rule"])
        self.steps, self.evaluations, self.failures = state["counts"]


@dataclass(frozen=True, slots=True)
class _HalvingRule:
    """Length by halving until the loss falls no further, damping by the size of the loss."""

    def numbers(self) -> dict[str, float]:
        """Nothing changes from step to step."""
        return {}

    def search(
        self,
        model: LocalModel,
        loss: float,
        trial: Callable[[Tensor], tuple[float, Callable[[], float]]],
    ) -> tuple[_HalvingRule, Tensor | None, StepReport]:
        """Find the best length, as `DampingRule.search` finds a damping."""
        damping = min(loss, _LARGEST_DAMPING)
        norm = model.metric.dual_norm(model.gradient)
        step = model.step(damping) if norm > 0 else None
        best, length, tries, lowest = 0.0, 1.0, 0, loss
        while step is not None and length >= _SHORTEST:
            tries += 1
            reached, _ = trial(length * step)
            if reached < lowest:
                best, lowest = length, reached
            elif best:
                break
            length /= 2
        taken = None if step is None or not best else best * step
        report = StepReport(
            loss=lowest, previous_loss=loss, gradient_norm=norm, gamma=best, damping=damping,
            tries=tries, predicted=0.0 if step is None else model.predicted(step, damping),
            is_accepted=taken is not None, is_stalled=taken is None and norm != 0,
        )  # fmt: skip
        return self, taken, report
