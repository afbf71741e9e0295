r"""The one differentiation rule of least squares.

At a minimiser :math:`\nabla C(w, \theta) = 0`, hence

.. math:: \frac{dw}{d\theta} = -\left(\nabla^2 C\right)^{-1} \partial_\theta \nabla C ,

with the exact Hessian: the part of it that Gauss and Newton leave out, second derivatives times
residuals, is as large as the residual that is left. The rule is written as one more step of Newton,

.. math:: w^+ = w - \left(\nabla^2 C\right)^{-1} \nabla C(w, \theta),

of which only the gradient :math:`\nabla C` is differentiated. Its value squares the error that the
iteration left; its derivative is the rule. Whoever sums gradients of parts computed elsewhere gets
the derivative of the whole by the same step (`newton_step`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    Solution,
    Status,
    apply_on_failure,
    check_finite,
    combine_status,
)
from solvers.nonlinear._least_squares import (
    LeastSquaresProblem,
    LevenbergMarquardt,
    first_guess,
)

__all__ = ["cost_gradient", "implicit_least_squares", "newton_step"]


class _CostGradient(torch.autograd.Function):
    """Gradient of the cost in ``w``, differentiable in what the cost depends on."""

    @staticmethod
    def forward(
        problem: LeastSquaresProblem, gradient: Tensor, w: Tensor, items: Tensor, *tensors: Tensor
    ) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.problem, _, w, items, *tensors = inputs
        # Kept so that writing into an input between forward and backward is an error.
        ctx.save_for_backward(w, items, *tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        w, items, *tensors = ctx.saved_tensors
        # An item that failed has no cotangent, and its derivatives may not be finite.
        live = cotangent.any(-1)
        if bool(live.any()):
            some = (
                (w, cotangent, items)
                if bool(live.all())
                else (w[live], cotangent[live], items[live])
            )
            return None, None, None, None, *ctx.problem.pull_back(*some)
        return None, None, None, None, *map(torch.zeros_like, tensors)


def cost_gradient(
    problem: LeastSquaresProblem, w: Tensor, items: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Exact Hessian, and gradient of the cost as a function of the problem's tensors.

    Args:
        problem: The batch.
        w: Where, shape ``(e, N)``; it counts as a constant.
        items: Which items, shape ``(e,)``; all by default.

    Returns:
        Gradient of shape ``(e, N)`` and Hessian of shape ``(e, N, N)``.

    Gradients: of the gradient in ``problem.tensors``, once.
    """
    if items is None:
        items = torch.arange(problem.items, device=w.device)
    w = w.detach()
    if not len(items):
        n = w.shape[-1]
        return _differentiable(problem, w, items, w), w.new_zeros(0, n, n)
    with torch.no_grad():
        at = problem.normal_equations(w, items, is_exact=True)
    return _differentiable(problem, w, items, at.gradient), at.matrix


def _differentiable(
    problem: LeastSquaresProblem, w: Tensor, items: Tensor, gradient: Tensor
) -> Tensor:
    """The gradient of the cost as a function of the problem's tensors."""
    value: Tensor = _CostGradient.apply(  # type: ignore[no-untyped-call]
        problem, gradient, w, items, *problem.tensors
    )
    return value


def newton_step(w: Tensor, gradient: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Take the step that carries the gradients of a minimiser.

    Args:
        w: Minimisers, shape ``(e, N)``.
        gradient: Of the cost at ``w``, differentiable in its parameters, shape ``(e, N)``.
        hessian: Exact, shape ``(e, N, N)``; a constant.

    Returns:
        ``w`` after the step, and which items have a positive definite Hessian; others keep ``w``
        and have no gradient.
    """
    hessian = hessian.detach()
    factor, info = torch.linalg.cholesky_ex(hessian)
    good = (info == 0) & factor.isfinite().all(-1).all(-1)
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    factor = torch.where(good[:, None, None], factor, eye)
    step = torch.cholesky_solve(torch.where(good[:, None], gradient, 0.0)[..., None], factor)
    return w.detach() - step[..., 0], good


def implicit_least_squares(
    problem: LeastSquaresProblem,
    start: Tensor | None = None,
    *,
    solver: LevenbergMarquardt | None = None,
    on_failure: OnFailure = "raise",
    what: str = "least squares",
) -> Solution[Tensor]:
    """Minimise with gradients.

    Args:
        problem: The batch; gradients go to its ``tensors``.
        start: First guess, shape ``(E, N)``; zero by default. It gets no gradient.
        solver: Settings of the iteration.
        on_failure: What to do about items that fail. In a batch that goes on they have their best
            iterate and no gradient.
        what: Name for messages.

    Returns:
        Minimisers, shape ``(E, N)``, with the report of `LevenbergMarquardt.solve`. An item that
        ends where the Hessian is not positive definite is no minimum: its status is ``BREAKDOWN``.
        One whose ``start`` is not finite is ``NON_FINITE`` and zero.

    Raises:
        NotConvergedError: If an item failed and ``on_failure`` is ``"raise"``.
        NonFiniteError: Likewise, if ``start`` is not finite; it names the entry.

    Gradients: by the implicit rule with the exact Hessian, once.
    Cost: of the backward pass one evaluation and one pass that writes gradients.
    """
    guess = first_guess(problem, start)
    if on_failure == "raise":
        check_finite("start", guess)
    is_lost = ~guess.isfinite().all(-1)
    guess = guess.masked_fill(is_lost[:, None], 0.0)
    solution, last = (solver or LevenbergMarquardt()).minimum(problem, guess)
    w, report = solution.value.masked_fill(is_lost[:, None], 0.0), solution.report
    status = report.status.masked_fill(is_lost, int(Status.NON_FINITE))
    items = (status == Status.CONVERGED).nonzero()[:, 0]
    if last is None:
        gradient, hessian = cost_gradient(problem, w[items], items)
    else:
        gradient = _differentiable(problem, w[items], items, last.gradient[items])
        hessian = last.matrix[items]
    stepped, good = newton_step(w[items], gradient, hessian)
    value = stepped if len(items) == len(w) else w.index_put((items,), stepped)
    second = torch.where(good, int(Status.CONVERGED), int(Status.BREAKDOWN))
    status = combine_status(status, status.index_put((items,), second))
    report = Report(
        status=status,
        iterations=report.iterations,
        residual=report.residual.masked_fill(is_lost, torch.nan),
        counts=report.counts,
    )
    solution = Solution(value=value, report=report)
    apply_on_failure(report, on_failure, solution=solution, what=what, stacklevel=4)
    return solution
