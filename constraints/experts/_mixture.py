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
from constraints.experts._interface import Continuity, GatheredProblem
from constraints.experts._partition import Partition
from constraints.experts._solution import MixtureSolution
from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
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
            and back; with it one for every iteration.
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
        coordinates: str = getattr(basis, "coordinates", "")
        if len(coordinates) != partition.dimension:
            raise SettingsError(
                f"basis: coordinates are {coordinates!r}, expected {partition.dimension} letters, "
                "as many as the partition has coordinates"
            )
        if not rows:
            raise SettingsError("rows: got none, expected at least one family")
        for family in rows.values():
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
        # Travels to workers with every call, without the numbers that are being trained.
        self._skeleton = copy.deepcopy(basis).requires_grad_(False)

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
            condition: What the basis knows of each sample, shape ``(S, c)``.
            start: First guess, shape ``(S, K, N)``, for example the ``coefficients`` of an earlier
                step; zero by default.

        Returns:
            The field; its report has one item for each sample and expert, ``(S, K)``, or with
            continuity one for each sample, ``(S,)``.

        Raises:
            SettingsError: If an expert has no points, or families do not match.
            NotConvergedError: If an item failed and ``on_failure`` is ``"raise"``.

        Gradients: of the basis's parameters and of ``condition``, by the implicit rule.
        """
        samples = 1 if condition is None else len(condition)
        parameters = {
            "theta": dict(self.basis.named_parameters()),
            "condition": condition,
        }
        items = self._split(points, data or {}, samples, start)
        expert = Expert(
            basis=self._skeleton,
            rows=self.rows,
            ridge=self.ridge,
            solver=self.solver,
            kind=self._kind(points, data or {}),
        )
        if self.continuity is None:
            w, report = self._solve_apart(expert, items, parameters)
        else:
            w, report = self._solve_together(self.continuity, expert, items, parameters)
        solution = MixtureSolution(
            coefficients=w,
            report=report,
            basis=self.basis,
            partition=self.partition,
            condition=condition,
            routing=self.routing,
        )
        apply_on_failure(
            report,
            self.on_failure,
            solution=Solution(value=solution, report=report),
            what="MixtureOfExperts",
            stacklevel=4,
        )
        return solution

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
        self,
        points: Mapping[str, Tensor],
        data: Mapping[str, Sequence[Tensor]],
        samples: int,
        start: Tensor | None,
    ) -> list[dict[str, Any]]:
        """What each expert gets: its points, their data, the factors of its rows, its start."""
        for what, given in (("points", points), ("data", data)):
            if not set(given) <= set(self.rows) or (
                what == "points" and len(given) < len(self.rows)
            ):
                raise SettingsError(
                    f"{what}: got families {sorted(given)}, expected {sorted(self.rows)}"
                )
        experts = self.partition.experts
        items: list[dict[str, Any]] = [
            {"points": {}, "data": {}, "scales": {}} for _ in range(experts)
        ]
        for name, rows in self.rows.items():
            places = points[name].to(torch.float64)
            columns = [
                _spread(f"data[{name!r}][{number}]", one, samples, len(places))
                for number, one in enumerate(data.get(name, ()))
            ]
            every = torch.arange(len(places))
            members = self.partition.members(places) if rows.is_local else [every] * experts
            for item, mine in zip(items, members, strict=True):
                # Together, experts minimise one sum; apart, each has means of its own.
                count = len(mine) if self.continuity is None else len(places)
                item["points"][name] = places[mine]
                item["data"][name] = [one[:, mine] for one in columns]
                item["scales"][name] = rows.weight / max(count, 1)
        for k, item in enumerate(items):
            if not any(map(len, item["points"].values())):
                raise SettingsError(
                    f"points: {self.partition.describe(k)} has none, expected some in every part; "
                    "draw more points or make fewer experts"
                )
            functions = self._functions(points)
            if start is None:
                item["start"] = torch.zeros(samples, functions, dtype=torch.float64)
            elif start.shape != (samples, experts, functions):
                raise ShapeError(
                    f"start: got shape {tuple(start.shape)}, expected "
                    f"{(samples, experts, functions)}: samples, experts, functions"
                )
            else:
                item["start"] = start[:, k].detach()
        return items

    def _functions(self, points: Mapping[str, Tensor]) -> int:
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


def _spread(name: str, one: Tensor, samples: int, points: int) -> Tensor:
    try:
        return one.to(torch.float64).expand(samples, points)
    except RuntimeError as error:
        raise ShapeError(
            f"{name}: got shape {tuple(one.shape)}, expected one that broadcasts to "
            f"({samples}, {points}): samples, points"
        ) from error
