"""Convex programs as layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from constraints._tensors import check_plain, check_real, keep_precision
from constraints.convex._declared import keep_declarations
from constraints.convex._solvers import DiffcpSolver, InteriorPointSolver, plug_in
from constraints.failure import FailurePolicy, act_on_failure, check_policy
from solvers.core import (
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    check_choice,
    check_count,
    check_positive,
)

if TYPE_CHECKING:
    import cvxpy

__all__ = ["ConvexLayer"]

_DENSE_UNKNOWNS = 400
_DENSE_ROWS = 2000


class ConvexLayer(nn.Module):
    """A convex program written in cvxpy, differentiable in its parameters.

    cvxpylayers brings the program into canonical form. Where that has only a quadratic cost, an
    orthant and second-order cones, and at most 400 unknowns and 2000 rows, the batched interior
    point of :class:`~constraints.ConeProgram` solves it; otherwise diffcp with Clarabel, one item
    after the other. Either way the violation is computed anew after each solve, and an item that
    claims to have converged and has not is reported as ``STALLED``, or as what its certificate
    proves.

    Args:
        problem: A problem that follows the rules of disciplined parametrised programming.
        parameters: Its parameters, in the order of the call.
        variables: Which variables to return.
        on_failure: ``"raise"``, ``"warn"`` or ``"mask"``; see :mod:`constraints.failure`.
        backend: ``"auto"``, ``"interior_point"`` or ``"diffcp"``.
        tolerance: Violation that counts as converged, relative to the right-hand sides.
        max_iterations: Interior-point steps at most.
        threads: Threads of the interior point.

    Raises:
        SettingsError: If the problem is not convex or its parameters enter in a way that is not
            allowed (the offending constraint is named), if parameters are missing, or if the
            backend cannot take its cones.

    Backward: exact adjoint of the active set (interior point), or diffcp's; zero for failed items,
    summed over the items that share a parameter. Once differentiable.

    Cost: set-up once, tens of milliseconds; a call canonicalises with one sparse product.

    Reference: Agrawal et al. 2019, "Differentiable convex optimization layers".

    Example:
        >>> import cvxpy, torch
        >>> x, point = cvxpy.Variable(2), cvxpy.Parameter(2)
        >>> ball = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - point)),
        ...                      [cvxpy.norm(x) <= 1])
        >>> nearest = ConvexLayer(ball, [point], [x])
        >>> (value,), report = nearest(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
        >>> value.numpy().round(6)
        array([[0.6, 0.8]])
    """

    def __init__(
        self,
        problem: cvxpy.Problem,
        parameters: Sequence[cvxpy.Parameter],
        variables: Sequence[cvxpy.Variable],
        *,
        on_failure: FailurePolicy = "raise",
        backend: Literal["auto", "interior_point", "diffcp"] = "auto",
        tolerance: float = 1e-7,
        max_iterations: int = 50,
        threads: int = 1,
    ):
        super().__init__()
        check_policy(on_failure, can_project=False)
        check_choice("backend", backend, ("auto", "interior_point", "diffcp"))
        check_positive("tolerance", tolerance)
        check_count("max_iterations", max_iterations)
        check_count("threads", threads)
        _check_problem(problem, parameters, variables)
        from cvxpylayers.torch import CvxpyLayer  # type: ignore[attr-defined]

        # Copies are made anew from the program: they solve in a place of their own.
        self._program = (problem, tuple(parameters), tuple(variables))
        self._settings = {
            "on_failure": on_failure,
            "backend": backend,
            "tolerance": tolerance,
            "max_iterations": max_iterations,
            "threads": threads,
        }
        self.on_failure: FailurePolicy = on_failure
        self._solver: Any = plug_in(InteriorPointSolver, tolerance, max_iterations, threads)
        own: Any = None
        if backend != "diffcp":
            own = CvxpyLayer(problem, list(parameters), list(variables), solver=self._solver)
            form = self._solver.form
            is_small = form.unknowns <= _DENSE_UNKNOWNS and form.rows <= _DENSE_ROWS
            if backend == "interior_point" and not form.is_second_order:
                raise SettingsError(
                    "backend: got 'interior_point' for a problem with exponential, power or "
                    "semidefinite cones, expected 'diffcp' or 'auto'"
                )
            if not form.is_second_order or (backend == "auto" and not is_small):
                own = None
        self.backend = "diffcp" if own is None else "interior_point"
        if own is None:
            self._solver = plug_in(DiffcpSolver, tolerance)
            own = CvxpyLayer(problem, list(parameters), list(variables), solver=self._solver)
            if self._solver.form.power:
                raise SettingsError(
                    "problem: has power cones, expected orthant, second-order, exponential or "
                    "semidefinite cones; write powers with second-order cones"
                )
        self._layer = own

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvexLayer:
        twin = _make(self._program, {**self._settings, "on_failure": self.on_failure})
        memo[id(self)] = twin
        return twin.train(self.training)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._program, {**self._settings, "on_failure": self.on_failure})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The numbers of the program stay double whatever the type of the model around it.
        return super()._apply(keep_precision(fn), recurse)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"backend={self.backend!r}, on_failure={self.on_failure!r}"

    def forward(self, *parameters: Tensor) -> tuple[tuple[Tensor, ...], Report]:
        """Solve the program for a batch of parameter values.

        Args:
            parameters: Values in the order of construction, of the parameters' shapes or with one
                batch axis in front; those without are shared by all items.

        Returns:
            Values of the variables in the type of the first parameter, and the report; the report
            of one item if nothing has a batch axis. ``iterations`` is zero with diffcp, which does
            not tell.

        Raises:
            ShapeError: If a shape does not fit.
            SettingsError: If a value is no real tensor, or inside of a `torch.func` transform;
                under ``"raise"`` also if it is not what its parameter was declared to be (as
                ``nonneg=True``). Under ``"warn"`` and ``"mask"`` such an item ends ``BREAKDOWN``
                with the solution for the nearest allowed value, without gradient.
            InfeasibleError: Under ``"raise"``, if failed items have no solution.
            NotConvergedError: Under ``"raise"``, if an item failed in another way.
        """
        wanted = self._layer.ctx.parameters
        if len(parameters) != len(wanted):
            raise ShapeError(f"parameters: got {len(parameters)}, expected {len(wanted)}")
        batch: int | None = None
        for number, (value, parameter) in enumerate(zip(parameters, wanted, strict=True)):
            check_real(parameter.name(), value, allow_whole=number > 0)
            check_plain(parameter.name(), value)
            own, shape = tuple(value.shape), tuple(parameter.shape)
            if own != shape and own[1:] != shape:
                raise ShapeError(
                    f"{parameter.name()}: got shape {own}, expected {shape} or a batch of it"
                )
            if own != shape:
                if batch not in {None, own[0]}:
                    raise ShapeError(
                        f"{parameter.name()}: got a batch of {own[0]}, expected {batch} as in an "
                        "earlier parameter; leave out the batch axis of what all items share"
                    )
                batch = own[0]
        if batch == 0:
            return self._nothing(parameters)
        strict = self.on_failure == "raise"
        kept, broken = keep_declarations(wanted, parameters, strict=strict)
        values = self._layer(*kept)
        if parameters:
            values = tuple(value.to(parameters[0].dtype) for value in values)
        report = self._solver.report
        if broken is not None:
            ended = torch.where(broken, int(Status.BREAKDOWN), report.status)
            report = replace(report, status=ended)
        if batch is None:
            report = report[0]
        if not report.all_converged:
            act_on_failure(
                report,
                self.on_failure,
                solution=Solution(value=values, report=report),
                what="ConvexLayer",
                stacklevel=4,
            )
        return values, report

    def _nothing(self, parameters: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Report]:
        """Solutions of no items, which depend on the parameters as others do."""
        first = parameters[0]
        zero = sum((value.flatten()[:0].sum() for value in parameters), start=first.new_zeros(()))
        shapes = [variable.shape for variable in self._layer.ctx.variables]
        none = first.new_zeros(0, dtype=torch.int64)
        report = Report(status=none, iterations=none, residual=first.new_zeros(0))
        return tuple(first.new_zeros(0, *shape) + zero for shape in shapes), report


def _make(program: tuple[Any, Any, Any], settings: dict[str, Any]) -> ConvexLayer:
    return ConvexLayer(*program, **settings)


def _check_problem(problem: Any, parameters: Sequence[Any], variables: Sequence[Any]) -> None:
    if not hasattr(problem, "is_dpp"):
        raise SettingsError(
            f"problem: got {type(problem).__name__}, expected a cvxpy.Problem of an objective and "
            "constraints"
        )
    for what, given in (("parameters", parameters), ("variables", variables)):
        if not isinstance(given, Iterable) or not all(hasattr(item, "id") for item in given):
            raise SettingsError(f"{what}: got {given!r}, expected a list of those of the problem")
    if not problem.is_dpp():
        parts = [("objective", problem.objective)]
        parts += [(f"constraint {i}", c) for i, c in enumerate(problem.constraints)]
        name, part = next(((n, p) for n, p in parts if not p.is_dcp(dpp=True)), parts[0])
        reason = "holds a parameter in a product with another"
        why = reason if part.is_dcp() else "is not convex"
        raise SettingsError(
            f"problem: {name} {why}: {part}; expected a disciplined parametrised program, "
            "see https://www.cvxpy.org/tutorial/dpp; try a new parameter for the product"
        )
    if problem.is_mixed_integer():
        raise SettingsError(
            "problem: has integer or boolean variables, expected continuous ones, in which it is "
            "convex; relax them, as cvxpy.Variable(n, bounds=[0, 1])"
        )
    for what, given, own in (
        ("parameters", parameters, problem.parameters()),
        ("variables", variables, problem.variables()),
    ):
        ids = {item.id for item in own}
        strange = [item.name() for item in given if item.id not in ids]
        missing = [item.name() for item in own if item.id not in {other.id for other in given}]
        if strange or (what == "parameters" and missing):
            raise SettingsError(
                f"{what}: got {', '.join(strange) or 'too few'}, expected those of the problem: "
                f"{', '.join(item.name() for item in own)}"
                + (f"; missing {', '.join(missing)}" if missing and what == "parameters" else "")
            )
    if not parameters:
        raise SettingsError(
            "parameters: got none, expected one or more; without, problem.solve() does it once"
        )
    if len({item.id for item in parameters}) < len(parameters):
        raise SettingsError(
            f"parameters: got {', '.join(item.name() for item in parameters)}, expected each once"
        )
