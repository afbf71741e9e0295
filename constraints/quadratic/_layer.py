"""The layers: arguments in, solution with report out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from constraints.failure import FailurePolicy, act_on_failure, check_policy
from constraints.quadratic._implicit import ProgramCall
from constraints.quadratic._inputs import Inputs, read_inputs
from constraints.quadratic._nearest import loosen
from solvers.core import Report, SettingsError, Solution, Status, check_choice, check_count
from solvers.nonlinear.interior_point import Backend

__all__ = ["ConeProgram", "QuadraticProgram"]

_NO_BOUND = 1e15


class ConeProgram(nn.Module):
    r"""Minimise :math:`\tfrac12 x^\top Q x + q^\top x` with :math:`Ax = b`, :math:`h - Gx \in K`.

    The cone K is an orthant (rows ``Gx <= h``) followed by second-order cones
    :math:`s_0 \ge |s_{1:}|`, which take the last rows of G and h.

    A batched Mehrotra interior point finds the neighbourhood of the solution; Newton's method on
    the projection equation then finds the exact active set, and its factor serves the backward
    pass. An item counts as converged only after that: optimality conditions and violation to 1e-11
    of the data. On the CPU this is compiled, one problem in each SIMD lane or one in all lanes; on
    a GPU it runs in torch.

    Args:
        second_order: Sizes of the second-order cones, each 2 or more.
        on_failure: See :mod:`constraints.failure`. ``"project"`` gives infeasible items the
            cheapest of the points that violate their rows least, to about 1e-6.
        max_iterations: Interior-point steps at most.
        backend: ``"auto"``, ``"kernel"`` (CPU) or ``"reference"`` (torch).
        threads: Threads among which the compiled form splits a batch.

    Raises:
        SettingsError: If a setting is not allowed.

    Backward: gradients with respect to all six tensors by one solve with the kept factor (one
    refinement), summed over the items that share a tensor. The cost sees only the symmetric part
    of Q, so the gradient of Q is symmetric, :math:`\tfrac12(ux^\top + xu^\top)`: to compare with
    finite differences move one entry of Q at a time. Where a row is weakly active the gradient is
    that of one side. Items that failed get zero gradients. Once differentiable.

    Cost: per step of an item about :math:`n^3/3 + n^2 (m + p)` multiplications, 4 to 10 steps. Rows
    of G that touch a few neighbours, as bounds do, cost next to nothing if they come last.
    Rows and cost are equilibrated; unknowns are not, so choose their units alike. Unknowns in the
    hundreds are the limit of this dense method.

    Reference: Mehrotra 1992 (iteration); Vandenberghe 2010 (cones); Amos & Kolter 2017 (layer).

    Example:
        >>> import torch
        >>> project = ConeProgram(second_order=(3,))  # onto the cone x0 >= |(x1, x2)|
        >>> point = torch.tensor([[0.0, 3.0, 4.0]], dtype=torch.float64)
        >>> identity = torch.eye(3, dtype=torch.float64)
        >>> x, report = project(Q=identity, q=-point, G=-identity, h=torch.zeros(3).double())
        >>> x.numpy().round(6)
        array([[2.5, 1.5, 2. ]])
    """

    def __init__(
        self,
        *,
        second_order: Sequence[int] = (),
        on_failure: FailurePolicy = "raise",
        max_iterations: int = 50,
        backend: Backend = "auto",
        threads: int = 1,
    ):
        super().__init__()
        check_policy(on_failure)
        check_choice("backend", backend, ("auto", "kernel", "reference"))
        check_count("max_iterations", max_iterations)
        check_count("threads", threads)
        if not isinstance(second_order, Iterable):
            raise SettingsError(
                f"second_order: got {second_order!r}, expected the sizes of the cones, as (3,)"
            )
        for size in second_order:
            check_count("second_order", size, least=0)
            if size < 2:
                raise SettingsError(
                    f"second_order: got a cone of size {size}, expected 2 or more; a cone of one "
                    "row is a row of the orthant"
                )
        self.second_order = tuple(int(size) for size in second_order)
        self.on_failure: FailurePolicy = on_failure
        self.max_iterations = max_iterations
        self.backend: Backend = backend
        self.threads = threads

    def extra_repr(self) -> str:
        """Settings, for printing."""
        cones = f"second_order={self.second_order}, " if self.second_order else ""
        return f"{cones}on_failure={self.on_failure!r}, backend={self.backend!r}"

    def forward(
        self,
        *,
        Q: Tensor,
        q: Tensor,
        G: Tensor | None = None,
        h: Tensor | None = None,
        A: Tensor | None = None,
        b: Tensor | None = None,
    ) -> tuple[Tensor, Report]:
        """Solve a batch; a tensor without batch axis is shared by all items.

        Args:
            Q: Hessian ``(n, n)`` or ``(B, n, n)``, positive semidefinite; an item whose cost curves
                downwards by more than rounding in single precision ends ``BREAKDOWN``.
            q: Slope ``(n,)`` or ``(B, n)``.
            G: Rows of inequalities and cones ``(m, n)`` or ``(B, m, n)``.
            h: Their right-hand sides ``(m,)`` or ``(B, m)``; above 1e15, infinity included, a row
                of the orthant counts as absent.
            A: Rows of equalities ``(p, n)`` or ``(B, p, n)``.
            b: Their right-hand sides ``(p,)`` or ``(B, p)``.

        Returns:
            Unknowns ``(B, n)``, or ``(n,)`` if nothing has a batch axis, and the report: status,
            steps, and the largest violation of the optimality conditions relative to the data. An
            item with NaN in its data ends ``NON_FINITE`` with x zero. An item whose rows contradict
            each other is ``INFEASIBLE`` even if its cost also falls without end.

        Raises:
            ShapeError: If sizes do not fit together.
            SettingsError: If types or devices differ, or one of G, h or of A, b is missing.
            InfeasibleError: Under ``"raise"``, if failed items have no solution.
            NotConvergedError: Under ``"raise"``, if an item failed in another way.
        """
        inputs, batch = read_inputs(Q, q, G, h, A, b, self.second_order)
        items = 1 if batch is None else batch
        call = ProgramCall(self.second_order, self.max_iterations, self.backend, self.threads)
        x = call.solve(inputs, items)
        if call.solved.has_failures and bool((inputs[3] > _NO_BOUND).any()):
            inputs = _without_idle_rows(inputs)
            x = call.solve(inputs, items)
        ended = call.solved
        counts: dict[str, Tensor] = {}
        failed = ended.has_failures
        if failed and self.on_failure == "project":
            x, counts = self._project(inputs, x, ended.status)
        if q.dtype is not x.dtype:
            x = x.to(q.dtype)
        report = Report(
            status=ended.status,
            iterations=ended.iterations,
            residual=ended.residual,
            counts=counts,
        )
        if batch is None:
            x, report = x[0], report[0]
        if failed:
            act_on_failure(
                report,
                self.on_failure,
                solution=Solution(value=x, report=report),
                what=type(self).__name__,
                stacklevel=4,
            )
        return x, report

    def _project(
        self, inputs: Inputs, x: Tensor, status: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        items = (status == Status.INFEASIBLE).nonzero()[:, 0]
        projected = torch.zeros_like(status)
        if len(items):
            call = ProgramCall(self.second_order, self.max_iterations, self.backend, self.threads)
            nearest = call.solve(loosen(inputs, items), len(items))
            good = call.solved.status == Status.CONVERGED
            items, nearest = items[good], nearest[good]
            x = x.index_put((items,), nearest[:, : x.shape[1]])
            projected[items] = 1
        return x, {"projected": projected}


class QuadraticProgram(ConeProgram):
    r"""Minimise :math:`\tfrac12 x^\top Q x + q^\top x` so that :math:`Gx \le h` and :math:`Ax = b`.

    The quadratic case of :class:`ConeProgram`; everything said there holds.

    Args:
        on_failure: See :mod:`constraints.failure`.
        max_iterations: Interior-point steps at most.
        backend: ``"auto"``, ``"kernel"`` (CPU) or ``"reference"`` (torch).
        threads: Threads among which the compiled form splits a batch.

    Example:
        >>> import torch
        >>> nearest = QuadraticProgram()  # nearest point of the unit simplex
        >>> point = torch.tensor([[0.9, 0.5, -0.7], [0.1, 0.2, 0.3]], dtype=torch.float64)
        >>> identity = torch.eye(3, dtype=torch.float64)
        >>> ones = torch.ones(1, 3, dtype=torch.float64)
        >>> x, report = nearest(Q=identity, q=-point, G=-identity, h=torch.zeros(3).double(),
        ...                     A=ones, b=ones[:, 0])
        >>> x.numpy().round(6)
        array([[0.7     , 0.3     , 0.      ],
               [0.233333, 0.333333, 0.433333]])
        >>> report.all_converged
        True
    """

    def __init__(
        self,
        *,
        on_failure: FailurePolicy = "raise",
        max_iterations: int = 50,
        backend: Backend = "auto",
        threads: int = 1,
    ):
        super().__init__(
            on_failure=on_failure, max_iterations=max_iterations, backend=backend, threads=threads
        )


def _without_idle_rows(inputs: Inputs) -> Inputs:
    """Replace rows whose right-hand side is out of reach by ``0 <= 1``."""
    Q, q, G, h, A, b = inputs
    idle = h > _NO_BOUND
    G = torch.where(idle[..., None], 0.0, G)
    return Q, q, G, torch.where(idle, 1.0, h), A, b
