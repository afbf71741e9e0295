"""Damped second-order training of residuals, losses and per-sample losses: the class ``GNS``.

The method, its tests of a step and its sources are told in the module of the damping rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from solvers.core import NonFiniteError, SettingsError, check_choice, check_count
from solvers.optim._closure import ClosureGraph
from solvers.optim._damped import DenseModel, LocalModel, Metric, ProductModel, RowModel
from solvers.optim._smoothness import Damping, DampingRule, StepReport
from solvers.optim._stepping import check_coupled, check_real

__all__ = ["GNS"]

Curvature = Literal["gauss_newton", "exact", "fisher"]
LinearSolver = Literal["auto", "cholesky", "woodbury", "cg"]
_DENSE = 2000


class GNS(Optimizer):
    r"""Gradient-normalized smoothness as a ``torch.optim`` optimizer.

    The closure must not call ``backward``. It returns what the curvature is made of:

    * ``"gauss_newton"``: residuals r; the loss is :math:`\tfrac12\|r\|^2`, :math:`H = J^\top J`;
    * ``"exact"``: the scalar loss; its Hessian must be positive semidefinite or it is damped until
      the system is;
    * ``"fisher"``: the losses of m samples; the loss is their mean, :math:`H = J^\top J / m`.

    Args:
        params: Tensors that take gradients, one group.
        hessian: What the closure returns, see above.
        metric: ``B``: None for the identity, ``"diagonal"`` for the diagonal of H at every step, or
            a tensor ``(n,)`` or ``(n, n)``.
        damping: Test of a step: ``"gain"``, ``"progress"`` or ``"nielsen"``.
        gamma: First radius, in the metric's norm; for ``"nielsen"`` one over the first damping.
        grow: Factor of gamma after success.
        shrink: Factor of gamma after failure.
        max_tries: Systems solved before a step is given up.
        solver: ``"cholesky"``, ``"woodbury"`` (fewer residuals than parameters), ``"cg"`` on
            products, or ``"auto"``: the cheaper dense one up to 2000 unknowns, products beyond.
        cg_tolerance: Relative residual of ``"cg"``.
        cg_iterations: Limit of ``"cg"``.
        chunk: Rows of the Jacobian that are computed at once.

    Attributes:
        report: :class:`StepReport` of the last step, None before the first.

    Raises:
        SettingsError: If a setting does not fit.

    Bad input: a trial that is not finite or a singular system counts as a failed trial; when all
    fail the parameters are exactly as before and ``report.is_stalled`` is set; as before they are
    also if the closure raises. A loss that is not finite before the step raises
    :class:`NonFiniteError`.

    Cost of a step: a Jacobian, one small dense solve a trial and one closure a trial (with its
    gradient for ``"progress"``).

    Example:
        >>> x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
        >>> optimizer = GNS([x])
        >>> residual = lambda: torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])
        >>> for _ in range(40):
        ...     loss = optimizer.step(residual)
        >>> bool(loss < 1e-12)
        True
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        hessian: Curvature = "gauss_newton",
        metric: Tensor | Literal["diagonal"] | None = None,
        damping: Damping = "gain",
        gamma: float = 1.0,
        grow: float = 2.0,
        shrink: float = 0.5,
        max_tries: int = 40,
        solver: LinearSolver = "auto",
        cg_tolerance: float = 1e-6,
        cg_iterations: int = 200,
        chunk: int = 64,
    ) -> None:
        check_choice("hessian", hessian, ("gauss_newton", "exact", "fisher"))
        check_choice("solver", solver, ("auto", "cholesky", "woodbury", "cg"))
        if hessian == "exact" and solver == "woodbury":
            raise SettingsError(
                "solver: got 'woodbury' with hessian='exact', which has no rows; expected "
                "'cholesky', 'cg' or 'auto'"
            )
        if isinstance(metric, str) and (metric != "diagonal" or solver == "cg"):
            raise SettingsError(
                f"metric: got {metric!r} with solver={solver!r}, expected None, 'diagonal' with a "
                "dense solver, or a tensor"
            )
        check_count("cg_iterations", cg_iterations)
        check_count("chunk", chunk)
        rule = DampingRule(kind=damping, gamma=gamma, grow=grow, shrink=shrink, max_tries=max_tries)
        super().__init__(params, {"hessian": hessian, "damping": damping, "chunk": chunk})
        check_real(self)
        if len(self.param_groups) != 1:
            raise SettingsError(
                f"params: got {len(self.param_groups)} groups, expected one; the step couples all "
                "parameters"
            )
        self.params: list[Tensor] = self.param_groups[0]["params"]
        self.report: StepReport | None = None
        self._metric = metric
        self._solver = solver
        self._cg_tolerance, self._cg_iterations = cg_tolerance, cg_iterations
        self._rule = rule

    @torch.enable_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> float:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Gives residuals, the loss or the losses of samples; called once a trial and
                once before.

        Returns:
            The loss before the step, as ``torch.optim.LBFGS`` does.

        Raises:
            SettingsError: If there is no closure, or its result does not depend on the parameters.
            NonFiniteError: If the loss is not finite before the step.
        """
        if closure is None:
            raise SettingsError(
                "closure: got None, expected a function that returns residuals or the loss, "
                "without backward"
            )
        state = self.state[self.params[0]]
        rule = replace(self._rule, **state["rule"]) if "rule" in state else self._rule
        kind, chunk = self.param_groups[0]["hessian"], self.param_groups[0]["chunk"]
        graph = ClosureGraph.trace(closure, self.params, kind)
        check_coupled(self.params)
        if not graph.is_finite:
            raise NonFiniteError(
                f"loss before the step is {graph.loss}, expected a finite number; start from other "
                "parameters or look for division by zero in the closure",
                name="loss",
            )
        model = self._model(graph, chunk)
        kept = [p.detach().clone() for p in self.params]

        def trial(step: Tensor) -> tuple[float, Callable[[], float]]:
            self._place(kept, step)
            moved = ClosureGraph.trace(closure, self.params, kind)
            return moved.loss, lambda: model.metric.dual_norm(moved.gradient())

        step = None
        try:
            after, step, self.report = rule.search(model, graph.loss, trial)
        finally:
            if step is None:
                self._place(kept, None)
        state["rule"] = after.numbers()
        state["report"] = asdict(self.report)
        return graph.loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the radius and the last report.

        Args:
            state_dict: From :meth:`state_dict`.
        """
        super().load_state_dict(state_dict)
        report = self.state[self.params[0]].get("report")
        self.report = None if report is None else StepReport(**report)

    @torch.no_grad()
    def _place(self, kept: list[Tensor], step: Tensor | None) -> None:
        place = 0
        for p, old in zip(self.params, kept, strict=True):
            p.copy_(old)
            if step is not None:
                p.add_(step[place : place + p.numel()].view_as(p))
            place += p.numel()

    def _model(self, graph: ClosureGraph, chunk: int) -> LocalModel:
        n, m = graph.size, graph.count
        solver = self._solver
        if solver == "auto":
            has_rows = graph.kind != "exact" and m < n
            solver = "woodbury" if has_rows and m <= _DENSE else "cholesky" if n <= _DENSE else "cg"
        gradient = graph.gradient()
        if solver == "cg":
            if isinstance(self._metric, str):
                raise SettingsError(
                    f"metric: 'diagonal' needs the rows of {n} parameters and {m} results, too "
                    "many for a dense solve; expected None or a tensor, or solver='cholesky'"
                )
            return ProductModel(
                gradient=gradient,
                metric=Metric.of(self._tensor_metric(), n),
                product=graph.product(),
                tolerance=self._cg_tolerance,
                iterations=self._cg_iterations,
            )
        if graph.kind == "exact":
            matrix = graph.hessian(chunk)
            metric = Metric.of(self._tensor_metric(matrix.diagonal()), n)
            return DenseModel(gradient=gradient, metric=metric, hessian=matrix)
        rows = graph.rows(chunk)
        metric = Metric.of(self._tensor_metric(rows.square().sum(0)), n)
        if solver == "woodbury":
            return RowModel(gradient=gradient, metric=metric, rows=rows, weights=graph.weights())
        return DenseModel(gradient=gradient, metric=metric, hessian=rows.T @ rows)

    def _tensor_metric(self, squares: Tensor | None = None) -> Tensor | None:
        if not isinstance(self._metric, str):
            return self._metric
        assert squares is not None
        # A parameter without influence must not divide by zero.
        diagonal = squares.abs()
        return diagonal.clamp(min=float(diagonal.max()) * 1e-8 + 1e-30)
