r"""The one differentiation rule of linear solves.

With :math:`A(\theta)\, x = b` and a cotangent :math:`g` of :math:`x`,

.. math:: A^\top \lambda = g, \qquad \bar b = \lambda, \qquad
          \bar\theta = -\partial_\theta \langle \lambda, A(\theta)\, x\rangle,

so the backward pass is one more solve, by the same prepared solver if :math:`A` is symmetric, and
one product of vector and Jacobian of the operator. The rule is itself written in differentiable
operations: gradients of gradients follow, each with its own solve. Forward mode solves
:math:`A\,\dot x = \dot b - \dot A x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import OnFailure, Report, SettingsError, Solution, Status, apply_on_failure
from solvers.linear._adjoint import AdjointStart
from solvers.linear._prepared import LinearSolver, Outcome, Prepared, expand_right_hand_side
from solvers.linear.operators._operator import LinearOperator

__all__ = ["implicit_solve"]


class _Preparation:
    """The prepared solver of one call, and that of the batch a vectorised call makes of it."""

    def __init__(self, prepared: Prepared | None = None):
        self.prepared = prepared
        self._batched: _Preparation | None = None

    @property
    def batched(self) -> _Preparation:
        if self._batched is None:
            self._batched = _Preparation()
        return self._batched


class _Problem:
    """Structure of a solve without its numbers.

    Nothing here looks at numbers before `prepare`, which sees plain tensors even inside
    transformations of `torch.func`.
    """

    def __init__(
        self,
        solver: LinearSolver,
        operator: LinearOperator,
        preparation: _Preparation,
        *,
        is_transposed: bool = False,
        x0: Tensor | None = None,
        start: AdjointStart | None = None,
        adjoint_start: AdjointStart | None = None,
        on_failure: OnFailure = "mask",
        is_derived: bool = False,
    ):
        self.solver = solver
        self.operator = operator
        self.preparation = preparation
        self.is_transposed = is_transposed
        self.x0 = x0
        self.start = start
        self.adjoint_start = adjoint_start
        self.on_failure = on_failure
        self.is_derived = is_derived
        self.names = tuple(operator.coefficients)
        self.counts: dict[str, Tensor] = {}

    def with_tensors(self, tensors: Sequence[Tensor]) -> LinearOperator:
        return self.operator.with_coefficients(dict(zip(self.names, tensors, strict=True)))

    def pull_back(self, x: Tensor, y: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of ``<y, A x>`` in the tensors; ``<y, A^T x> = <x, A y>``."""
        if self.is_transposed:
            x, y = y, x
        slopes = self.with_tensors(tensors).pull_back(x, y)
        return tuple(slopes[name] for name in self.names)

    def prepare(self, tensors: Sequence[Tensor]) -> Prepared:
        preparation = self.preparation
        if preparation.prepared is None:
            operator = self.with_tensors([tensor.detach() for tensor in tensors])
            preparation.prepared = self.solver.prepare(operator)
        return preparation.prepared.transpose() if self.is_transposed else preparation.prepared

    def run(self, b: Tensor, tensors: Sequence[Tensor]) -> Outcome:
        """Solve plain tensors."""
        prepared = self.prepare(tensors)
        if self.start is None:
            return prepared.run(b, self.x0)
        outcome = prepared.run(b, self.start.guess(b, len(self.operator.domain)))
        self.start.keep(b, outcome)
        return outcome

    def adjoint(self) -> _Problem:
        """The transposed problem, with the same preparation."""
        return _Problem(
            self.solver,
            self.operator,
            self.preparation,
            is_transposed=not self.is_transposed,
            start=self.adjoint_start,
            is_derived=True,
        )

    def tangent(self) -> _Problem:
        """The same problem without a guess."""
        return _Problem(
            self.solver,
            self.operator,
            self.preparation,
            is_transposed=self.is_transposed,
            is_derived=True,
        )

    def vectorised(self, *, is_batched: bool) -> _Problem:
        """The problem of a vectorised call; a batch of coefficients has its own preparation."""
        return _Problem(
            self.solver,
            self.operator,
            self.preparation.batched if is_batched else self.preparation,
            is_transposed=self.is_transposed,
            x0=self.x0,
            on_failure=self.on_failure,
            is_derived=self.is_derived,
        )

    def is_good(self, status: Tensor) -> Tensor:
        """Which items have gradients.

        A cotangent or tangent need not lie in the range of the operator: the nearest solution is
        what the rule wants, and it is as differentiable as any other.
        """
        good = status == Status.CONVERGED
        return good | (status == Status.INFEASIBLE) if self.is_derived else good


class _Solve(torch.autograd.Function):
    """Solution, status, iterations and residual; gradients by the adjoint solve."""

    @staticmethod
    def forward(problem: _Problem, b: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outcome = problem.run(b.detach(), tensors)
        problem.counts = dict(outcome.counts)
        if problem.on_failure != "mask":
            solution = Solution(value=outcome.value, report=_report(outcome, problem.counts))
            apply_on_failure(
                solution.report,
                problem.on_failure,
                solution=solution,
                what=problem.prepare(tensors).label,
                stacklevel=4,
            )
        return outcome.value, outcome.status, outcome.iterations, outcome.residual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.problem = inputs[0]
        ctx.mark_non_differentiable(*output[1:])
        saved = (output[0], output[1], *inputs[2:])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, status, *tensors = ctx.saved_tensors
        problem: _Problem = ctx.problem
        axes = len(problem.operator.domain)
        good = problem.is_good(status).reshape(*status.shape, *(1,) * axes)
        cotangent = torch.where(good, cotangent, 0.0)
        multiplier = _solve(problem.adjoint(), cotangent, tensors)[0]
        wanted = ctx.needs_input_grad[2:]
        if not any(wanted):
            return None, multiplier, *(None for _ in tensors)
        # A failed item must not bring its NaN into the gradients of shared coefficients.
        solution = torch.where(good, x, 0.0)
        slopes = problem.pull_back(solution, -multiplier, tensors)
        return None, multiplier, *(s if w else None for s, w in zip(slopes, wanted, strict=True))

    @staticmethod
    def jvp(ctx: Any, _: Any, b_dot: Tensor | None, *dots: Tensor | None) -> tuple[Any, ...]:
        x, _, *tensors = ctx.saved_tensors
        problem: _Problem = ctx.problem
        right = torch.zeros_like(x) if b_dot is None else b_dot
        if any(dot is not None for dot in dots):
            tangents = tuple(
                torch.zeros_like(tensor) if dot is None else dot
                for tensor, dot in zip(tensors, dots, strict=True)
            )

            def pull(y: Tensor) -> tuple[Tensor, ...]:
                return problem.pull_back(x, y, tensors)

            # Transposed once more: forward mode does not nest, reverse mode does.
            push = torch.func.vjp(pull, torch.zeros_like(x))[1]
            right = right - push(tangents)[0]
        x_dot = _solve(problem.tangent(), right, tensors)[0]
        return x_dot, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], problem: _Problem, b: Tensor, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        _, b_dim, *tensor_dims = in_dims
        is_batched = any(dim is not None for dim in tensor_dims)
        operator = problem.operator
        own = max([len(operator.batch), b.ndim - len(operator.codomain) - (b_dim is not None)])
        b = b.movedim(b_dim, 0) if b_dim is not None else b.expand(info.batch_size, *b.shape)
        b = _pad_batch(b, own + 1 + len(operator.codomain))
        moved = []
        for tensor, dim in zip(tensors, tensor_dims, strict=True):
            if dim is None:
                moved.append(tensor)
                continue
            axes = own + 1 + tensor.ndim - 1 - len(operator.batch)
            moved.append(_pad_batch(tensor.movedim(dim, 0), axes))
        outputs: tuple[Tensor, ...] = _Solve.apply(  # type: ignore[no-untyped-call]
            problem.vectorised(is_batched=is_batched), b, *moved
        )
        return outputs, (0, 0, 0, 0)


def _pad_batch(tensor: Tensor, axes: int) -> Tensor:
    """Insert axes of size one after the first."""
    return tensor.reshape(tensor.shape[0], *(1,) * (axes - tensor.ndim), *tensor.shape[1:])


def _solve(problem: _Problem, b: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Apply the rule to a right-hand side with all its preparations, differentiably."""
    outputs: tuple[Tensor, ...] = _Solve.apply(  # type: ignore[no-untyped-call]
        problem, b, *tensors
    )
    return outputs


def implicit_solve(
    solver: LinearSolver,
    operator: LinearOperator,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    adjoint: AdjointStart | None = None,
    on_failure: OnFailure = "raise",
    prepared: Prepared | None = None,
) -> Solution[Tensor]:
    """Solve with gradients.

    Args:
        solver: The method.
        operator: The operator, with gradients in its coefficients.
        b: Right-hand sides, with gradients.
        x0: First guess.
        adjoint: Where the backward pass starts.
        on_failure: What to do about items that fail.
        prepared: The solver prepared for this operator, if it is at hand.

    Returns:
        Solution with value and report.

    Raises:
        SettingsError: If ``adjoint`` is no `AdjointStart`.
    """
    operator.check_vector("b", b)
    if adjoint is not None and not isinstance(adjoint, AdjointStart):
        raise SettingsError(
            f"adjoint: got {adjoint!r}, expected an AdjointStart() that outlives the solve, or None"
        )
    if x0 is not None:
        operator.check_vector("x0", x0, shape=operator.domain)
        x0 = x0.detach()
    problem = _Problem(
        solver,
        operator,
        _Preparation(prepared),
        x0=x0,
        adjoint_start=adjoint,
        on_failure=on_failure,
    )
    b = expand_right_hand_side(operator, b)
    tensors = tuple(operator.coefficients.values())
    value, status, iterations, residual = _solve(problem, b, tensors)
    report = Report(status=status, iterations=iterations, residual=residual, counts=problem.counts)
    return Solution(value=value, report=report)


def _report(outcome: Outcome, counts: dict[str, Tensor]) -> Report:
    return Report(
        status=outcome.status,
        iterations=outcome.iterations,
        residual=outcome.residual,
        counts=counts,
    )
