"""A mixture of experts: one basis, one set of coefficients for each part of space-time."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from constraints.experts._basis import derivative_axes
from constraints.experts._expert import Expert, ExpertHost, Rows
from constraints.experts._inputs import (
    check_condition,
    find_lost,
    name_culprit,
    put_back,
    read_data,
    read_points,
    read_start,
)
from constraints.experts._interface import Continuity, GatheredProblem
from constraints.experts._partition import Partition
from constraints.experts._solution import MixtureSolution
from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    Solution,
    Status,
    apply_on_failure,
    check_choice,
    check_positive,
    combine_status,
)
from solvers.nonlinear import (
    LevenbergMarquardt,
    NormalEquations,
    PointwiseProblem,
    choose_problem,
    newton_step,
)
from solvers.parallel import Executor, SerialExecutor, differentiable_map

__all__ = ["MixtureOfExperts"]


class MixtureOfExperts(nn.Module):
    """Fit a field by parts, each a combination of the same basis functions.

    With ``continuity`` all experts are solved together and the field does not jump between boxes;
    without, each is solved alone.

    Args:
        basis: From ``(points (n, d), condition (S, c) or None, features)`` to ``(S, n, k, N)``, as
            `JetBasis`, with attribute ``coordinates``, the letters of the coordinates.
        rows: Families of rows by name.
        partition: Parts of space-time.
        continuity: What is continuous across faces, by the letter of the coordinate that they are
            normal to: ``{"x": ("u", "u_x"), "t": ("u",)}`` for value and flux in space, value in
            time.
        continuity_weight: Factor of the mean squares of jumps; derivatives are scaled by the width
            of a box.
        interface_points: Points on each interface.
        routing: ``"hard"``: a point belongs to the expert of its box; ``"blend"``: neighbours are
            mixed in the overlap by a partition of unity.
        ridge: Factor of the squares of coefficients.
        tolerance: Share of the residual that a further step may remove.
        max_iterations: Steps of an item.
        executor: Where experts are solved; in this thread by default. Expert ``k`` runs on worker
            ``k`` modulo their number. Without continuity a step is one message to each worker there
            and back; with it one for every iteration. Copies of the module share it; a pickled
            module comes back with the default.
        on_failure: ``"raise"``, ``"warn"`` or ``"mask"``: failed items have their best iterate and
            no gradient.

    Raises:
        SettingsError: If a setting is out of range or does not fit the partition.

    Source: Chalapathi, Du & Krishnapriyan 2024, "Scaling physics-informed hard constraints with
    mixture-of-experts": boxes, hard routing, shared basis. Ours are continuity, overlap, rows as
    mean squares, exact Hessians.

    Example:
        >>> from constraints.experts import JetBasis, Rows
        >>> basis = JetBasis("x", functions=8, width=16)
        >>> mixture = MixtureOfExperts(
        ...     basis,
        ...     {"equation": Rows(residual=lambda u, du: du + u, features=("u", "u_x")),
        ...      "start": Rows(residual=lambda u: u - 1.0, features=("u",))},
        ...     Partition.boxes([0.0], [1.0], [2]),
        ...     continuity={"x": ("u",)},
        ... )
        >>> x = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
        >>> solution = mixture({"equation": x, "start": x[:1]})
        >>> bool((solution(x)[0, :, 0] - torch.exp(-x[:, 0])).abs().max() < 1e-3)
        True
    """

    def __init__(
        self,
        basis: nn.Module,
        rows: Mapping[str, Rows],
        partition: Partition,
        *,
        continuity: Mapping[str, Sequence[str]] | None = None,
        continuity_weight: float = 100.0,
        interface_points: int = 32,
        routing: Literal["hard", "blend"] = "hard",
        ridge: float = 1e-8,
        tolerance: float = 1e-6,
        max_iterations: int = 100,
        executor: Executor | None = None,
        on_failure: OnFailure = "raise",
    ):
        super().__init__()
        if not isinstance(partition, Partition):
            raise SettingsError(
                f"partition: got {type(partition).__name__}, expected a Partition, as "
                "Partition.boxes([0.0], [1.0], [2])"
            )
        coordinates: str = getattr(basis, "coordinates", "")
        if len(coordinates) != partition.dimension:
            raise SettingsError(
                f"basis: coordinates are {coordinates!r}, expected {partition.dimension} letters, "
                "as many as the partition has coordinates"
            )
        if not rows:
            raise SettingsError("rows: got none, expected at least one family")
        for family in rows.values():
            if not isinstance(family, Rows):
                raise SettingsError(
                    f"rows: got {type(family).__name__}, expected constraints.experts.Rows, as "
                    'Rows(residual=lambda u: u, features=("u",))'
                )
            for name in family.features:
                derivative_axes(name, coordinates)
            check_positive("weight", family.weight, allow_zero=True)
        check_choice("routing", routing, ("hard", "blend"))
        check_choice("on_failure", on_failure, ("raise", "warn", "mask"))
        check_positive("continuity_weight", continuity_weight)
        check_positive("interface_points", interface_points)
        if routing == "blend":
            partition.blend(torch.zeros(0, partition.dimension, dtype=torch.float64))
        self.basis, self.rows, self.partition = basis, dict(rows), partition
        self.routing, self.on_failure = routing, on_failure
        self.executor = executor or SerialExecutor()
        self.ridge = ridge
        self.solver = LevenbergMarquardt(tolerance=tolerance, max_iterations=max_iterations)
        self.continuity = (
            None
            if continuity is None
            else Continuity(
                partition,
                coordinates,
                continuity,
                weight=continuity_weight,
                points=interface_points,
            )
        )
        # Travels to workers, where each call gives it the numbers of the basis; in a tuple, so that
        # its own are neither trained nor saved.
        self._skeleton = (copy.deepcopy(basis).requires_grad_(False),)

    def forward(
        self,
        points: Mapping[str, Tensor],
        data: Mapping[str, Sequence[Tensor]] | None = None,
        *,
        condition: Tensor | None = None,
        start: Tensor | None = None,
    ) -> MixtureSolution:
        """Solve all experts for all samples.

        Args:
            points: Points of each family, shape ``(n, d)``; all samples share them.
            data: What residuals take besides features: tensors that broadcast to ``(S, n)``.
            condition: What the basis knows of each sample, shape ``(S, c)``
                or what else the basis takes, samples first.
            start: First guess, shape ``(S, K, N)``, for example the ``coefficients`` of an earlier
                step; zero by default.

        Returns:
            The field; its report has one item for each sample and expert, ``(S, K)``, or with
            continuity one for each sample, ``(S,)``.

        Raises:
            SettingsError: If an expert has no points, families do not match, or an argument is no
                real tensor.
            ShapeError: If shapes do not fit together.
            NotConvergedError: If an item failed and ``on_failure`` is ``"raise"``.

        Gradients: of the basis's parameters and of ``condition``, by the implicit rule.

        A sample whose condition or start is not finite is ``NON_FINITE`` with a field of zero; one
        whose data are not, at the experts that see them.
        """
        check_condition(condition)
        samples = 1 if condition is None else len(condition)
        places = read_points(points, list(self.rows), self.partition.dimension)
        columns = read_data(data, list(self.rows), places, samples)
        first = read_start(start, (samples, self.partition.experts, self._functions()))
        items = self._split(places, columns, first)
        expert = Expert(
            basis=self._skeleton[0],
            rows=self.rows,
            ridge=self.ridge,
            solver=self.solver,
            kind=self._kind(points, columns),
        )
        given = {"condition": condition, "start": first} | {
            f"data[{name!r}][{number}]": one
            for name, some in columns.items()
            for number, one in enumerate(some)
        }
        lost = find_lost(condition, first)
        if not len(lost) or bool(lost.any()):
            # Not solved at all: a basis that is not finite would spoil its parameters' gradients.
            kept = (~lost).nonzero()[:, 0]
            some = [_choose(item, kept, first[kept, k]) for k, item in enumerate(items)]
            w, report = self._solve(expert, some, None if condition is None else condition[kept])
            w, report = put_back(w, report, kept, samples)
            if condition is not None:
                rows = lost.reshape(-1, *(1,) * (condition.ndim - 1))
                condition = torch.where(rows, torch.zeros_like(condition), condition)
        else:
            w, report = self._solve(expert, items, condition)
        solution = MixtureSolution(
            coefficients=w,
            report=report,
            basis=self.basis,
            partition=self.partition,
            condition=condition,
            routing=self.routing,
        )
        if not report.all_converged:
            apply_on_failure(
                report,
                self.on_failure,
                solution=Solution(value=solution, report=report),
                what="MixtureOfExperts" + name_culprit(given),
                stacklevel=4,
            )
        return solution

    def __deepcopy__(self, memo: dict[int, Any]) -> MixtureOfExperts:
        """Copy what `__getstate__` leaves out, too: copies share the executor."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Leave workers behind: who loads a pickled mixture solves it in its own thread."""
        return {**self.__dict__, "executor": SerialExecutor()}

    def _solve(
        self, expert: Expert, items: list[dict[str, Any]], condition: Tensor | None
    ) -> tuple[Tensor, Report]:
        if not len(items[0]["start"]):
            shape = (0,) if self.continuity else (0, len(items))
            none = torch.zeros(shape, dtype=torch.int64)
            w = torch.zeros(0, len(items), self._functions(), dtype=torch.float64)
            return w, Report(status=none, iterations=none, residual=none.double())
        numbers = {**dict(self.basis.named_parameters()), **dict(self.basis.named_buffers())}
        parameters = {"theta": numbers, "condition": condition}
        if self.continuity is None:
            return self._solve_apart(expert, items, parameters)
        return self._solve_together(self.continuity, expert, items, parameters)

    def _solve_apart(
        self, expert: Expert, items: list[dict[str, Any]], parameters: dict[str, Any]
    ) -> tuple[Tensor, Report]:
        found = differentiable_map(
            expert.solve, items, parameters=parameters, executor=self.executor
        )
        reports = Report.stack([report for _, report in found])
        return torch.stack([w for w, _ in found], 1), Report(
            status=reports.status.T,
            iterations=reports.iterations.T,
            residual=reports.residual.T,
            counts={name: count.T for name, count in reports.counts.items()},
        )

    def _solve_together(
        self,
        continuity: Continuity,
        expert: Expert,
        items: list[dict[str, Any]],
        parameters: dict[str, Any],
    ) -> tuple[Tensor, Report]:
        condition = parameters["condition"]
        matrices = continuity.matrices(lambda x, names: self.basis(x, condition, names))
        samples, functions = matrices[0].shape[:2]
        gathered = GatheredProblem(
            samples, functions, self._evaluation(expert, items, parameters), continuity, matrices
        )
        first = torch.stack([item["start"] for item in items], 1).flatten(1)
        solution = self.solver.solve(gathered, first)
        w, report = solution.value, solution.report
        good = report.converged.nonzero()[:, 0]
        if not len(good):
            return w.reshape(samples, -1, functions), report
        some = [
            _choose(item, good, w.reshape(samples, -1, functions)[good, k])
            for k, item in enumerate(items)
        ]
        chosen = {**parameters, "condition": None if condition is None else condition[good]}
        found = differentiable_map(
            expert.stationarity, some, parameters=chosen, executor=self.executor
        )
        G = [one[good] for one in matrices]
        each = w[good].reshape(len(good), -1, functions)
        gradient = torch.stack([g for g, _ in found], 1) + continuity.gradient(G, each)
        hessian = gathered.assemble([H.detach() for _, H in found], [one.detach() for one in G])
        stepped, is_minimum = newton_step(w[good], gradient.flatten(1), hessian)
        w = w.index_put((good,), stepped)
        second = torch.where(is_minimum, int(Status.CONVERGED), int(Status.BREAKDOWN))
        status = combine_status(report.status, report.status.index_put((good,), second))
        return w.reshape(samples, -1, functions), Report(
            status=status,
            iterations=report.iterations,
            residual=report.residual,
            counts=report.counts,
        )

    def _evaluation(
        self, expert: Expert, items: list[dict[str, Any]], parameters: dict[str, Any]
    ) -> Any:
        """Ask every expert's worker for its normal equations."""
        step = uuid.uuid4().hex
        plain = {
            "theta": {name: one.detach() for name, one in parameters["theta"].items()},
            "condition": None
            if parameters["condition"] is None
            else parameters["condition"].detach(),
        }
        recipe = self.executor.share((expert, items, plain))
        hosts = self.executor.residents(ExpertHost)

        def evaluate(w: Tensor, chosen: Tensor, is_exact: bool) -> list[NormalEquations]:
            sent = [
                hosts[k % len(hosts)].call(
                    "normal_equations", step, k, recipe, w[:, k].contiguous(), chosen, is_exact
                )
                for k in range(len(items))
            ]
            return [one.result() for one in sent]

        return evaluate

    def _split(
        self, points: Mapping[str, Tensor], columns: Mapping[str, Sequence[Tensor]], start: Tensor
    ) -> list[dict[str, Any]]:
        """What each expert gets: its points, their data, the factors of its rows, its start."""
        experts = self.partition.experts
        items: list[dict[str, Any]] = [
            {"points": {}, "data": {}, "scales": {}, "start": start[:, k]} for k in range(experts)
        ]
        for name, rows in self.rows.items():
            places = points[name]
            every = torch.arange(len(places))
            members = self.partition.members(places) if rows.is_local else [every] * experts
            for item, mine in zip(items, members, strict=True):
                # Together, experts minimise one sum; apart, each has means of its own.
                count = len(mine) if self.continuity is None else len(places)
                item["points"][name] = places[mine]
                item["data"][name] = [one[:, mine] for one in columns[name]]
                item["scales"][name] = rows.weight / max(count, 1)
        for k, item in enumerate(items):
            if not any(map(len, item["points"].values())):
                raise SettingsError(
                    f"points: {self.partition.describe(k)} has none, expected some in every part; "
                    "draw more points or make fewer experts"
                )
        return items

    def _functions(self) -> int:
        known = getattr(self.basis, "functions", None)
        if not isinstance(known, int):
            raise SettingsError("basis: has no attribute functions, expected their number N")
        return known

    def _kind(
        self, points: Mapping[str, Tensor], data: Mapping[str, Sequence[Tensor]]
    ) -> type[PointwiseProblem]:
        tensors = [*points.values(), *self.basis.parameters()]
        shapes = {n: (len(rows.features), len(data.get(n, ()))) for n, rows in self.rows.items()}
        return choose_problem({n: rows.residual for n, rows in self.rows.items()}, shapes, tensors)


def _choose(item: dict[str, Any], samples: Tensor, w: Tensor) -> dict[str, Any]:
    data = {name: [one[samples] for one in columns] for name, columns in item["data"].items()}
    return {**item, "data": data, "start": w}
