"""Mixtures of experts: partitions, continuity, gradients, the same bits on every executor."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from constraints import ImplicitLeastSquares, MixtureOfExperts
from constraints.experts import JetBasis, MixtureSolution, Partition, Rows
from solvers.core import NotConvergedError, SettingsError, ShapeError, Status
from solvers.core.testing import check_gradients
from solvers.kernels import scalar
from solvers.nonlinear import PointwiseProblem, implicit_least_squares
from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def heat(u: Any, u_t: Any, u_xx: Any) -> Any:
    return u_t - 0.1 * u_xx + 0.5 * u * u


ROWS = {
    "equation": Rows(residual=heat, features=("u", "u_t", "u_xx")),
    "initial": Rows(residual=lambda u, goal: u - goal, features=("u",)),
    "wall": Rows(residual=lambda u: u, features=("u",)),
}


def points(count: int = 160, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.arange(24, dtype=torch.float64) + 0.5) / 24
    t = (torch.arange(12, dtype=torch.float64) + 0.5) / 12
    wall = [torch.stack([torch.full_like(t, side), t], 1) for side in (0.0, 1.0)]
    return {
        "equation": torch.rand(count, 2, generator=generator, dtype=torch.float64),
        "initial": torch.stack([x, 0 * x], 1),
        "wall": torch.cat(wall),
    }


def mixture(experts: int = 2, *, basis: JetBasis | None = None, **options: Any) -> MixtureOfExperts:
    made = basis or JetBasis("xt", 6, width=12, conditions=1, seed=1)
    parts = options.pop("partition", None) or Partition.boxes([0, 0], [1, 1], [experts, 1])
    return MixtureOfExperts(made, ROWS, parts, **{"ridge": 1e-5, **options})


def solve(
    layer: MixtureOfExperts, condition: Tensor | None = None, **options: Any
) -> MixtureSolution:
    if condition is None:
        condition = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    given = points()
    goal = condition * torch.sin(math.pi * given["initial"][:, 0])
    return layer(given, {"initial": [goal.detach()]}, condition=condition, **options)


HELD = {"continuity": {"x": ("u", "u_x")}}


@given(
    counts=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    overlap=st.floats(0.02, 0.49),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_blending_is_a_partition_of_unity(
    counts: tuple[int, int], overlap: float, seed: int
) -> None:
    parts = Partition.boxes([-1, 0], [2, 5], counts, overlap=overlap)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(50, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 5.0]) - (
        torch.tensor([1.0, 0.0])
    )
    weights = parts.blend(x)
    assert weights.shape == (50, counts[0] * counts[1])
    assert torch.allclose(weights.sum(1), torch.ones(50, dtype=torch.float64))
    assert (weights >= -1e-15).all()
    # The owner has the largest share, and sees its points.
    assert torch.equal(weights.argmax(1), parts.owner(x)) or weights.max(1).values.min() <= 0.51
    for expert, mine in enumerate(parts.members(x)):
        assert set((parts.owner(x) == expert).nonzero()[:, 0].tolist()) <= set(mine.tolist())


def test_boxes_share_faces() -> None:
    parts = Partition.boxes([0, 0, 0], [1, 1, 1], [2, 3, 1])
    assert len(parts.interfaces) == 1 * 3 + 2 * 2
    for face in parts.interfaces:
        x = face.points(16)
        for side, expert in ((-1e-6, face.first), (1e-6, face.second)):
            near = x.clone()
            near[:, face.axis] += side
            assert (parts.owner(near) == expert).all()


@pytest.mark.parametrize("feature", ["u", "u_x", "u_t", "u_xx", "u_tt"])
def test_jets_are_derivatives(feature: str) -> None:
    basis = JetBasis("xt", 3, width=7, depth=3, conditions=1, seed=2)
    condition = torch.tensor([[0.3], [0.9]], dtype=torch.float64)
    x = points()["equation"][:5]

    def value(x: Tensor) -> Tensor:
        return basis(x, condition, ("u",))[..., 0, :]

    expected = value
    for axis in feature.partition("_")[2]:
        inner, place = expected, "xt".index(axis)

        def expected(x: Tensor, inner: Any = inner, place: int = place) -> Tensor:
            direction = torch.zeros_like(x)
            direction[:, place] = 1
            return torch.func.jvp(inner, (x,), (direction,))[1]

    found = basis(x, condition, ("u", feature))[..., 1, :]
    assert torch.allclose(found, expected(x), rtol=1e-11, atol=1e-12)


def test_one_expert_is_the_plain_layer() -> None:
    layer = mixture(1)
    solution = solve(layer)
    given, condition = points(), solution.condition
    assert condition is not None
    goal = condition * torch.sin(math.pi * given["initial"][:, 0])
    features = {
        name: layer.basis(given[name], condition, rows.features) for name, rows in ROWS.items()
    }
    plain = ImplicitLeastSquares(
        {name: rows.residual for name, rows in ROWS.items()}, ridge=1e-5, tolerance=1e-6
    )
    w, report = plain(features, {"initial": [goal]})
    assert report.all_converged
    assert torch.allclose(solution.coefficients[:, 0], w, rtol=1e-9, atol=1e-9)


def test_held_experts_are_one_large_problem() -> None:
    """The same minimum from one problem with all unknowns, whose rows are padded with zeros."""
    layer = mixture(3, **HELD, continuity_weight=5.0, interface_points=16, tolerance=1e-10)
    solution = solve(layer)
    given, condition, K, N = points(), solution.condition, 3, 6
    assert condition is not None

    def pad(phi: Tensor, k: int) -> Tensor:
        return torch.nn.functional.pad(phi, (k * N, (K - 1 - k) * N))

    features: dict[str, Tensor] = {}
    data: dict[str, list[Tensor]] = {}
    goal = condition * torch.sin(math.pi * given["initial"][:, 0])
    for name, rows in ROWS.items():
        owner = layer.partition.owner(given[name])
        parts = [
            pad(layer.basis(given[name][owner == k], condition, rows.features), k) for k in range(K)
        ]
        features[name] = torch.cat(parts, 1)
        if name == "initial":
            data[name] = [torch.cat([goal[:, owner == k] for k in range(K)], 1)]
    residuals: dict[str, Any] = {name: rows.residual for name, rows in ROWS.items()}
    for number, face in enumerate(layer.partition.interfaces):
        phi = layer.basis(face.points(16), condition, ("u", "u_x"))
        phi = phi * torch.tensor([1.0, 1 / 3], dtype=torch.float64)[:, None]
        features[f"face {number}"] = pad(phi, face.first) - pad(phi, face.second)
        residuals[f"face {number}"] = lambda u, flux: (u, flux)
    weights = {name: 5.0 for name in features if name.startswith("face")}
    large = PointwiseProblem(residuals, features, data, weights=weights, ridge=1e-5)
    w = implicit_least_squares(large, solver=layer.solver).value
    assert torch.allclose(solution.coefficients.flatten(1), w, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("options", [{}, HELD], ids=["apart", "held"])
def test_gradients_are_those_of_differences(options: dict[str, Any]) -> None:
    layer = mixture(2, tolerance=1e-9, **options)
    names = list(dict(layer.basis.named_parameters()))
    x = torch.tensor([[0.2, 0.3], [0.8, 0.9], [0.5, 0.4]], dtype=torch.float64)
    given = points()
    goal = torch.sin(math.pi * given["initial"][:, 0]).expand(2, -1)

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, condition: Tensor) -> Tensor:
            return self.layer(given, {"initial": [goal]}, condition=condition)(x, ("u", "u_x"))

    field = Field()

    def evaluate(condition: Tensor, *theta: Tensor) -> Tensor:
        chosen = {f"layer.basis.{name}": one for name, one in zip(names, theta, strict=True)}
        return torch.func.functional_call(field, chosen, (condition,))

    condition = torch.tensor([[0.4], [0.9]], dtype=torch.float64)
    theta = [one.detach() for one in layer.basis.parameters()]
    error = check_gradients(evaluate, [condition, *theta], directions=2, eps=1e-5, rtol=1e-6)
    assert error < 1e-6


def test_held_experts_jump_less() -> None:
    apart, held = (solve(mixture(3, **options)) for options in ({}, HELD))
    assert float(held.jump().max()) < 0.1 * float(apart.jump().max())
    tight = solve(mixture(3, **HELD, continuity_weight=1e4))
    assert float(tight.jump().max()) < 0.1 * float(held.jump().max())


def test_blended_experts_do_not_jump() -> None:
    parts = Partition.boxes([0, 0], [1, 1], [2, 1], overlap=0.2)
    solution = solve(mixture(partition=parts, routing="blend"))
    x = torch.tensor([[0.5 - 1e-9, 0.3], [0.5 + 1e-9, 0.3]], dtype=torch.float64)
    u = solution(x)[..., 0]
    assert torch.allclose(u[:, 0], u[:, 1], atol=1e-6)
    with pytest.raises(SettingsError, match="blended"):
        solution(x, ("u_x",))


def test_a_warm_start_needs_fewer_iterations() -> None:
    layer = mixture(2, **HELD)
    first = solve(layer)
    again = solve(layer, start=first.coefficients)
    assert (again.report.iterations <= 1).all()
    assert torch.allclose(again.coefficients, first.coefficients, atol=1e-6)


def test_random_assignment() -> None:
    generator = torch.Generator().manual_seed(0)

    def index(x: Tensor) -> Tensor:
        return torch.randint(0, 2, (len(x),), generator=generator)

    solution = solve(mixture(partition=Partition.from_index(index, 2, 2)))
    assert solution.report.all_converged
    assert not solution.jump().any()


def step(executor: Executor | None, options: dict[str, Any]) -> list[Tensor]:
    layer = mixture(3, executor=executor, **options)
    solution = solve(layer)
    x = points(30, seed=3)["equation"]
    loss = solution(x, ("u", "u_x")).square().mean()
    loss.backward()
    return [loss.detach(), solution.coefficients.detach()] + [
        one.grad for one in layer.basis.parameters() if one.grad is not None
    ]


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    with RayExecutor(workers=2) as executor:
        executor.start()
        yield executor


@pytest.mark.parametrize("options", [{}, HELD], ids=["apart", "held"])
@pytest.mark.parametrize("kind", ["serial", "threads", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_executor_gives_the_same_bits(
    kind: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    expected = step(None, options)
    if kind == "ray":
        found = step(request.getfixturevalue("ray_executor"), options)
    else:
        with (SerialExecutor if kind == "serial" else ThreadExecutor)(2) as executor:
            # Several times, for what threads do to each other is a matter of luck.
            for _ in range(4):
                again = step(executor, options)
                assert all(map(torch.equal, again, expected))
            found = step(executor, options)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, HELD], ids=["apart", "held"])
def test_a_killed_worker_does_not_lose_the_step(
    options: dict[str, Any], ray_executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = step(None, options)
    killed = []
    if options:
        # In the middle of the iteration, with features kept on the worker.
        import constraints.experts._interface as interface

        plain = interface.GatheredProblem.normal_equations

        def murderous(self: Any, *arguments: Any, **given: Any) -> Any:
            killed.append(1)
            if len(killed) == 3:
                os.kill(ray_executor.processes[1], signal.SIGKILL)
            return plain(self, *arguments, **given)

        monkeypatch.setattr(interface.GatheredProblem, "normal_equations", murderous)
    layer = mixture(3, executor=ray_executor, **options)
    solution = solve(layer)
    loss = solution(points(30, seed=3)["equation"], ("u", "u_x")).square().mean()
    # Between forward and backward, with graphs kept on the worker.
    os.kill(ray_executor.processes[0], signal.SIGKILL)
    loss.backward()
    found = [loss.detach(), solution.coefficients.detach()]
    found += [one.grad for one in layer.basis.parameters() if one.grad is not None]
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("options", [{}, HELD], ids=["apart", "held"])
def test_a_bad_sample_fails_alone(options: dict[str, Any]) -> None:
    condition = torch.tensor([[0.5], [math.nan], [1.0]], dtype=torch.float64)
    with pytest.raises(NotConvergedError, match="MixtureOfExperts"):
        solve(mixture(2, **options), condition)
    layer = mixture(2, on_failure="mask", **options)
    solution = solve(layer, condition)
    status = solution.report.status.reshape(3, -1)
    assert (status[1] == Status.NON_FINITE).all()
    assert not status[[0, 2]].any()
    good = solve(mixture(2, **options), condition[[0, 2]])
    assert torch.allclose(solution.coefficients[[0, 2]], good.coefficients, rtol=1e-9, atol=1e-10)


def test_bad_input() -> None:
    layer = MixtureOfExperts(
        JetBasis("xt", 3),
        {"equation": ROWS["equation"]},
        Partition.boxes([0, 0], [1, 1], [2, 1]),
    )
    with pytest.raises(SettingsError, match=r"expert 1 \(0.5 to 1, 0 to 1\) has none"):
        layer({"equation": torch.tensor([[0.1, 0.2]], dtype=torch.float64)})
    with pytest.raises(SettingsError, match="expected coordinate 0 from 0.0 to 1.0"):
        layer({"equation": torch.tensor([[1.1, 0.2]], dtype=torch.float64)})
    with pytest.raises(SettingsError, match=r"expected \['x'\]: the coordinates along which"):
        mixture(2, continuity={"t": ("u",)})
    with pytest.raises(SettingsError, match="no interfaces"):
        mixture(1, continuity={"x": ("u",)})
    with pytest.raises(SettingsError, match="'u_y'"):
        mixture(2, continuity={"x": ("u_y",)})
    with pytest.raises(SettingsError, match="no overlap"):
        mixture(2, routing="blend")
    with pytest.raises(SettingsError, match="families"):
        mixture(2)({"equation": points()["equation"]})
    with pytest.raises(ShapeError, match="start"):
        solve(mixture(2), start=torch.zeros(2, 2, 5, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"data\['initial'\]\[0\]"):
        mixture(2)(points(), {"initial": [torch.ones(7)]}, condition=torch.ones(2, 1).double())
    with pytest.raises(SettingsError, match="2 letters"):
        MixtureOfExperts(JetBasis("x", 3), ROWS, Partition.boxes([0, 0], [1, 1], [2, 1]))


def test_a_residual_for_tensors_only_runs_as_well() -> None:
    rows = {
        **ROWS,
        "equation": Rows(
            residual=lambda u, a, b: torch.sinh(u) + a - b, features=("u", "u_t", "u_xx")
        ),
    }
    traced = {**ROWS, "equation": Rows(
        residual=lambda u, a, b: 0.5 * (scalar.exp(u) - scalar.exp(-u)) + a - b,
        features=("u", "u_t", "u_xx"),
    )}  # fmt: skip
    basis = JetBasis("xt", 4, width=8, conditions=1)
    parts = Partition.boxes([0, 0], [1, 1], [2, 1])
    one, two = (solve(MixtureOfExperts(basis, r, parts, tolerance=1e-9)) for r in (rows, traced))
    assert torch.allclose(one.coefficients, two.coefficients, rtol=1e-6, atol=1e-7)
