r"""Gradient-normalized smoothness: how far a quadratic model of a loss may be trusted.

.. math:: x^+ = x - \left(H(x) + \frac{\|g\|_*}{\gamma} B\right)^{-1} g, \qquad
    \|g\|_* = \sqrt{g^\top B^{-1} g},

so that :math:`\|x^+ - x\|_B \le \gamma`. The radius :math:`\gamma` is the largest within which the
gradient is linear to the accuracy
:math:`\|\nabla f(x+h) - \nabla f(x) - H h\|_* \le \|g\|_* \|h\|_B / \gamma`. It is not known; it
doubles after a step that passes a test and halves after one that does not:

* ``"progress"``, the paper's: :math:`f(x) - f(x^+) \ge \|g^+\|_*^2 / (8\lambda)` with
  :math:`\lambda = \|g\|_*/\gamma`. It costs a gradient a trial.
* ``"gain"``: the decrease is at least :math:`10^{-3}` of what the model predicts. It costs a loss a
  trial. For Gauss-Newton matrices of residuals that do not vanish the first test keeps
  :math:`\gamma` tiny, because the part of the Hessian that is left out is bounded by the residual
  and not by the gradient; this one does not, hence it is the default.
* ``"nielsen"``: Levenberg-Marquardt for comparison, :math:`\lambda` free of the gradient,
  multiplied by :math:`\max(1/3, 1 - (2\rho - 1)^3)` after success with gain ratio :math:`\rho` and
  by 2, 4, 8 ... after failures.

References: Semenov, Jaggi & Doikov 2025, "Gradient-normalized smoothness for optimization with
approximate Hessians", algorithm 1; Nielsen 1999, "Damping parameter in Marquardt's method".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from solvers.core import SettingsError, check_choice, check_positive
from solvers.optim._damped import LocalModel

__all__ = ["Damping", "DampingRule", "StepReport"]

Damping = Literal["gain", "progress", "nielsen"]
Trial = Callable[[Tensor], tuple[float, Callable[[], float]]]

_GAIN = 1e-3
_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one step did.

    Attributes:
        loss: After the step.
        previous_loss: Before it.
        gradient_norm: Dual norm of the gradient before it.
        gamma: Radius for the next step.
        damping: Multiple of the metric in the accepted or last system.
        tries: Systems solved.
        predicted: Decrease that the model promised.
        is_accepted: Whether the parameters moved.
        is_stalled: Whether every trial failed or the gradient is not finite; the parameters are
            exactly as before.
    """

    loss: float
    previous_loss: float
    gradient_norm: float
    gamma: float
    damping: float
    tries: int
    predicted: float
    is_accepted: bool
    is_stalled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DampingRule:
    """How the damping is chosen and a step accepted.

    Attributes:
        kind: The test.
        grow: Factor of gamma after success.
        shrink: Factor of gamma after failure.
        max_tries: Systems solved before the step is given up.
        gamma: Present radius; for ``"nielsen"`` one over the damping.
        failures: Factor of the next increase of ``"nielsen"``.
    """

    kind: Damping = "gain"
    grow: float = 2.0
    shrink: float = 0.5
    max_tries: int = 40
    gamma: float = 1.0
    failures: float = 2.0

    def __post_init__(self) -> None:
        check_choice("damping", self.kind, ("gain", "progress", "nielsen"))
        check_positive("gamma", self.gamma)
        if not (self.grow >= 1.0 > self.shrink > 0.0 and self.max_tries >= 1):
            raise SettingsError(
                f"grow, shrink, max_tries: got {self.grow}, {self.shrink}, {self.max_tries}, "
                "expected grow >= 1 > shrink > 0 and at least one try"
            )

    def numbers(self) -> dict[str, float]:
        """What changes from step to step."""
        return {"gamma": self.gamma, "failures": self.failures}

    def search(
        self, model: LocalModel, loss: float, trial: Trial
    ) -> tuple[DampingRule, Tensor | None, StepReport]:
        """Try steps until one passes.

        Args:
            model: Quadratic model at the present point.
            loss: Loss there.
            trial: Moves to the present point plus a step and gives the loss and a function for
                the dual norm of the gradient there.

        Returns:
            The rule for the next step, the accepted step or None, and the report.
        """
        rule, norm = self, model.metric.dual_norm(model.gradient)
        damping = predicted = math.nan
        tries = 0
        while norm > 0 and tries < self.max_tries:
            tries += 1
            damping = 1.0 / rule.gamma if rule.kind == "nielsen" else norm / rule.gamma
            step = model.step(damping)
            if step is None:
                rule = rule._after_failure()
                continue
            predicted = model.predicted(step, damping)
            new_loss, new_norm = trial(step)
            decrease = loss - new_loss
            if math.isfinite(new_loss) and rule._passes(decrease, predicted, damping, new_norm):
                rule = rule._after_success(decrease / max(predicted, 1e-300))
                report = StepReport(
                    loss=new_loss, previous_loss=loss, gradient_norm=norm, gamma=rule.gamma,
                    damping=damping, tries=tries, predicted=predicted,
                    is_accepted=True, is_stalled=False,
                )  # fmt: skip
                return rule, step, report
            rule = rule._after_failure()
        report = StepReport(
            loss=loss, previous_loss=loss, gradient_norm=norm, gamma=self.gamma, damping=damping,
            tries=tries, predicted=predicted, is_accepted=False, is_stalled=norm != 0,
        )  # fmt: skip
        return self, None, report

    def _passes(
        self, decrease: float, predicted: float, damping: float, new_norm: Callable[[], float]
    ) -> bool:
        if self.kind == "progress":
            # A loss that rises fails whatever the gradient is.
            return decrease >= 0 and decrease >= new_norm() ** 2 / (8.0 * damping)
        return predicted > 0 and decrease >= _GAIN * predicted

    def _after_success(self, ratio: float) -> DampingRule:
        if self.kind == "nielsen":
            factor = max(1.0 / 3.0, 1.0 - (2.0 * min(ratio, 2.0) - 1.0) ** 3)
            return replace(self, gamma=self.gamma / factor, failures=2.0)
        return replace(self, gamma=max(self.grow * self.gamma, _SMALLEST))

    def _after_failure(self) -> DampingRule:
        if self.kind == "nielsen":
            return replace(self, gamma=self.gamma / self.failures, failures=2.0 * self.failures)
        return replace(self, gamma=self.shrink * self.gamma)
