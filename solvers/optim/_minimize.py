"""Gradient-normalized smoothness on an objective of one vector: the function ``minimize_gns``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    Solution,
    Status,
    apply_on_failure,
    check_choice,
    check_finite,
)
from solvers.curvature import Objective, gauss_newton, hessian, jacobian
from solvers.optim._damped import DenseModel, LocalModel, Metric, RowModel
from solvers.optim._smoothness import Damping, DampingRule, StepReport

__all__ = ["Minimum", "minimize_gns"]

Hessian = Literal["gauss_newton", "exact"] | Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Minimum(Solution[Tensor]):
    """A minimiser with the story of its search.

    Attributes:
        steps: What each step did, in order.
    """

    steps: tuple[StepReport, ...]


def minimize_gns(
    objective: Objective,
    start: Float[Tensor, " n"] | None = None,
    *,
    hessian_of: Hessian = "gauss_newton",
    metric: Float[Tensor, "n n"] | Float[Tensor, " n"] | None = None,
    damping: Damping = "gain",
    gamma: float = 1.0,
    iterations: int = 200,
    tolerance: float = 1e-8,
    target: float | None = None,
    max_tries: int = 60,
    on_failure: OnFailure = "raise",
) -> Minimum:
    r"""Minimise an objective by damped quadratic models.

    Args:
        objective: What is minimised.
        start: First point; the objective's start by default.
        hessian_of: ``"gauss_newton"`` (of residuals, or weighted by the Hessian of the outputs'
            loss), ``"exact"``, or a function of the point that gives a positive semidefinite
            matrix ``(n, n)``, zero for the gradient method.
        metric: ``B``: None for the identity, a diagonal ``(n,)`` or a matrix ``(n, n)``.
        damping: Test of a step, see :class:`GNS`.
        gamma: First radius.
        iterations: Limit of steps.
        tolerance: Dual norm of the gradient over the first one.
        target: Stop as soon as the loss is below.
        max_tries: Systems solved before a step is given up.
        on_failure: What happens when the search ends elsewhere than at the tolerance or target.

    Returns:
        The last point; the report's residual is the gradient's norm over the first one, its counts
        hold the number of ``evaluations``.

    Raises:
        NotConvergedError: If the limit came first or no step passed, and ``on_failure="raise"``.
        NonFiniteError: If the loss is not finite at the start.

    Example:
        >>> bowl = Objective.of_residual(lambda x: x - 3.0, torch.zeros(2, dtype=torch.float64))
        >>> [round(float(x), 6) for x in minimize_gns(bowl).value]
        [3.0, 3.0]
    """
    if isinstance(hessian_of, str):
        check_choice("hessian_of", hessian_of, ("gauss_newton", "exact"))
    x = (objective.start if start is None else start).detach().clone()
    loss = float(objective.check_repeatable(x))
    fixed = Metric.of(metric, len(x))
    rule = DampingRule(kind=damping, gamma=gamma, max_tries=max_tries)
    first: float | None = None
    steps: list[StepReport] = []
    status, norm, evaluations = Status.MAX_ITERATIONS, 0.0, 1
    for k in range(iterations + 1):
        gradient = objective.gradient(x)
        check_finite("gradient", gradient, step=k)
        norm = fixed.dual_norm(gradient)
        first = norm if first is None else first
        if norm <= tolerance * first or (target is not None and loss < target):
            status = Status.CONVERGED
            break
        if k == iterations:
            break
        model = _model(objective, x, gradient, fixed, hessian_of)

        def trial(step: Tensor, at: Tensor = x) -> tuple[float, Callable[[], float]]:
            moved = at + step
            with torch.no_grad():
                value = float(objective.loss(moved))
            return value, lambda: fixed.dual_norm(objective.gradient(moved))

        rule, step, report = rule.search(model, loss, trial)
        steps.append(report)
        evaluations += report.tries
        if step is None:
            status = Status.STALLED
            break
        x, loss = x + step, report.loss
    result = Minimum(
        value=x,
        report=Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(sum(step.is_accepted for step in steps)),
            residual=torch.tensor(norm / (first or 1.0), dtype=torch.float64),
            counts={"evaluations": torch.tensor(evaluations)},
        ),
        steps=tuple(steps),
    )
    apply_on_failure(result.report, on_failure, solution=result, what="minimize_gns")
    return result


def _model(
    objective: Objective, x: Tensor, gradient: Tensor, metric: Metric, hessian_of: Hessian
) -> LocalModel:
    if hessian_of == "gauss_newton" and objective.is_least_squares:
        rows = jacobian(objective, x)
        if rows.shape[0] < rows.shape[1]:
            with torch.no_grad():
                weights = objective.residual(x).reshape(-1)
            return RowModel(gradient=gradient, metric=metric, rows=rows, weights=weights)
        return DenseModel(gradient=gradient, metric=metric, hessian=rows.T @ rows)
    if hessian_of == "gauss_newton":
        matrix = gauss_newton(objective, x).dense()
    elif hessian_of == "exact":
        matrix = hessian(objective, x).dense()
    else:
        assert not isinstance(hessian_of, str)
        matrix = hessian_of(x)
    return DenseModel(gradient=gradient, metric=metric, hessian=matrix.detach())
