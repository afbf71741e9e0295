"""Stages and pieces: joints that close, executors that agree, runs that go on to the same bits."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from solvers.core import CheckpointError, SettingsError, Status
from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor
from solvers.pde import Ball, Box, Data, Dirichlet, Initial, Neumann, Periodic, Problem
from solvers.pde.functions import cos, pi, sin
from solvers.pinn import MLP, PINN, XPINN, Curriculum, PiecewiseResult, TimeMarching, load
from solvers.pinn._boxes import conditions_within, cut
from solvers.pinn._collocation import Collocation
from solvers.pinn._team import Team

NET = MLP(width=6, depth=2)


def convection(beta: float = 2.0) -> Problem:
    return Problem(
        name="convection",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, x, t, beta: u.t + beta * u.x,
        coefficients={"beta": beta},
        conditions=[Initial(u=sin), Periodic(axis="x")],
        reference=lambda x, t, beta: sin(x - beta * t),
    )


def wave() -> Problem:
    return Problem(
        name="wave",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, x, t: u.tt - u.xx,
        conditions=[
            Initial(u=lambda x: sin(pi * x), u_t=0.0),
            Dirichlet(axis="x", side="both", u=0.0),
        ],
        reference=lambda x, t: sin(pi * x) * cos(pi * t),
    )


def poisson() -> Problem:
    return Problem(
        name="Poisson",
        domain=Box(x=(0, 1)),
        residual=lambda u, x: u.xx / pi**2 + sin(pi * x),
        conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        reference=lambda x: sin(pi * x),
    )


def test_terms_of_all_pieces_and_interfaces_add_up_to_the_loss() -> None:
    row = XPINN(convection(), NET, pieces={"t": 2}, points=60).fit(10, steps=5).history[-1]
    names = ["residual equation of piece 0", "residual equation of piece 1", "interfaces"]
    assert row["loss"] == pytest.approx(sum(row[name] for name in names), rel=1e-10)


def test_a_curriculum_starts_each_stage_where_the_last_one_ended() -> None:
    stages = Curriculum(convection(3.0), NET, coefficient="beta", values=(1.0, 2.0), points=80)
    first = PINN(convection(1.0), NET, points=80).fit(30, steps=4)
    second = PINN(convection(2.0), NET, points=80).fit(30, steps=4, start=first.network.theta)
    third = PINN(convection(3.0), NET, points=80).fit(30, steps=4, start=second.network.theta)
    result = stages.fit(30, steps=4, stage_tolerance=None, measure=True)
    assert torch.equal(result.network.theta, third.network.theta)
    assert [row["stage"] for row in result.history] == sorted(
        row["stage"] for row in result.history
    )
    assert result.history[-1]["step"] == 12 == int(result.report.iterations)
    assert result.history[-1]["relative_l2"] == pytest.approx(result.relative_l2)


def test_windows_of_time_join_and_reach_the_reference() -> None:
    march = TimeMarching(convection(), MLP(width=8, depth=2), windows=3, points=200)
    result = march.fit(40, steps=150)
    assert result.largest_jump < 2e-2
    assert result.relative_l2 < 2e-2
    for time in (1 / 3, 2 / 3):
        x = torch.linspace(0, 6, 7, dtype=torch.float64)
        with torch.no_grad():
            early, late = result(x, time - 1e-9), result(x, time + 1e-9)
        assert isinstance(early, torch.Tensor)
        assert float((early - late).abs().max()) <= 1.1 * result.largest_jump + 1e-6


def test_a_wave_hands_over_its_rate_too() -> None:
    result = TimeMarching(wave(), MLP(width=8, depth=2), windows=2, points=150).fit(40, steps=250)
    assert result.relative_l2 < 2e-2
    x = torch.full((9,), 0.5, dtype=torch.float64, requires_grad=True)
    rates = []
    for piece in range(2):
        points = torch.stack([torch.linspace(0, 1, 9, dtype=torch.float64), x], 1)
        values = result.network.piece(piece, points)[:, 0]
        rates.append(torch.autograd.grad(values.sum(), x)[0])
    assert float((rates[0] - rates[1]).abs().max()) < 0.2


@pytest.mark.parametrize("kind", ["curriculum", "marching"])
def test_stages_go_on_bit_for_bit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(**options: Any) -> Any:
        if kind == "curriculum":
            given = {"coefficient": "beta", "values": (1.0,), "points": 60, **options}
            return Curriculum(convection(), NET, **given)
        return TimeMarching(convection(), NET, **{"windows": 2, "points": 60, **options})

    limits: dict[str, Any] = {"steps": 6}
    if kind == "curriculum":
        limits["stage_tolerance"] = None
    whole = make().fit(30, **limits)
    file = tmp_path / "run.safetensors"
    train = PINN.fit

    def interrupt(stage: int) -> Callable[..., Any]:
        """Ctrl-C in the middle of a stage."""
        calls: list[int] = []

        def fit(self: PINN, *args: Any, **options: Any) -> Any:
            calls.append(1)
            is_hit = len(calls) == 1 + stage
            result = train(self, *args, **(options | {"steps": 3} if is_hit else options))
            self.is_interrupted = is_hit
            return result

        return fit

    for stage in (0, 1):
        monkeypatch.setattr(PINN, "fit", interrupt(stage))
        part = make().fit(30, checkpoint=file, on_failure="mask", **limits)
        if not stage:
            assert int(part.report.status) == Status.MAX_ITERATIONS
    monkeypatch.setattr(PINN, "fit", train)
    rest = make().fit(30, checkpoint=file, **limits)
    assert torch.equal(whole.network.theta, rest.network.theta)
    again = make().fit(30, checkpoint=file, **limits)
    assert torch.equal(whole.network.theta, again.network.theta)
    assert again.history == rest.history
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]
    with pytest.raises(CheckpointError, match="points"):
        make(points=61).fit(30, checkpoint=file, **limits)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("kind", ["curriculum", "marching"])
def test_ctrl_c_ends_a_schedule_and_its_file_goes_on(
    kind: str, stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Curriculum | TimeMarching:
        options: dict[str, Any] = {"network": NET, "points": 60, "backend": "sweep"}
        if kind == "marching":
            return TimeMarching(convection(), windows=2, **options)
        return Curriculum(convection(), coefficient="beta", values=(1.0,), **options)

    evaluate, calls, presses = Collocation.loss_and_gradient, 0, -1

    def watched(self: Collocation, theta: torch.Tensor) -> tuple[float, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == presses:
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, theta)

    monkeypatch.setattr(Collocation, "loss_and_gradient", watched)
    limits: dict[str, Any] = {"steps": 12, "on_failure": "mask"}
    whole = make().fit(60, **limits)
    # Early in the first stage, or some steps before the end of the second.
    calls, presses = 0, 5 if stage == 0 else calls - 6
    file = tmp_path / "run.safetensors"
    solver = make()
    part = solver.fit(60, checkpoint=file, **limits)
    assert solver.is_interrupted
    assert 12 * stage < int(part.report.iterations) < 12 * (stage + 1)
    if isinstance(part, PiecewiseResult):
        assert part.largest_jump >= 0.0
    solver = make()
    rest = solver.fit(60, checkpoint=file, **limits)
    assert not solver.is_interrupted
    assert torch.equal(rest.network.theta, whole.network.theta)


@pytest.fixture(scope="module")
def halves() -> XPINN:
    return XPINN(poisson(), NET, pieces={"x": 2}, points=40, condition_weight=10.0)


def test_the_gradient_of_joined_pieces_is_that_of_their_loss(halves: XPINN) -> None:
    with SerialExecutor() as executor:
        team = Team(executor, halves._recipes, halves._sizes, halves._interfaces)
        theta = halves.initial()
        _, gradient = team.loss_and_gradient(theta)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            direction = torch.randn(len(theta), generator=generator, dtype=torch.float64)
            step = 1e-5
            up, down = (
                team.loss_and_gradient(theta + sign * step * direction)[0] for sign in (1, -1)
            )
            slope = (up - down) / (2 * step)
            assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6)


def test_value_and_slope_agree_where_a_second_order_equation_is_cut(halves: XPINN) -> None:
    start = halves.field(halves.initial())
    result = halves.fit(40, target=1e-4)
    assert result.report.all_converged
    assert result.relative_l2 < 1e-4
    x = torch.full((1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    slopes = [float(torch.autograd.grad(result.network.piece(k, x).sum(), x)[0]) for k in range(2)]
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-2)
    with torch.no_grad():
        before = float((start.piece(0, x) - start.piece(1, x)).abs())
    assert result.largest_jump < 1e-2 * before


def test_a_period_that_is_cut_closes() -> None:
    result = XPINN(convection(), NET, pieces={"x": 2}, points=80).fit(40, steps=400, target=2e-2)
    assert result.report.all_converged
    assert [joint.pieces for joint in result.joints] == [(0, 1), (1, 0)]
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    ends = [result(place, t) for place in (0.0, 2 * pi)]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ["marching", "subdomains"])
def test_pieces_are_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    problem = convection()
    arm: TimeMarching | XPINN = (
        TimeMarching(problem, NET, windows=2, points=40)
        if kind == "marching"
        else XPINN(problem, NET, pieces={"t": 2}, points=40)
    )
    result = arm.fit(30, steps=5)
    again = load(result.save(tmp_path / "field.safetensors"), problem)
    x = torch.linspace(0, 6, 9, dtype=torch.float64)
    assert torch.equal(again(x, x / 6), result(x, x / 6))
    assert isinstance(again, PiecewiseResult)
    assert again.largest_jump == result.largest_jump
    assert again.settings == result.settings


def thetas(executor: Executor) -> list[torch.Tensor]:
    problem = convection()
    options: dict[str, Any] = {"points": 63, "resample_every": 4}
    with executor:
        pieces = XPINN(problem, NET, pieces={"t": 3}, **options)
        return [
            pieces.fit(60, steps=9, executor=executor).network.theta,
            PINN(problem, NET, **options).fit(60, steps=9, executor=executor).network.theta,
            PINN(problem, NET, **options)
            .fit(60, steps=3, executor=executor, optimizer="gns")
            .network.theta,
        ]


def test_serial_and_threads_give_the_same_numbers() -> None:
    for one, other in zip(thetas(SerialExecutor(2)), thetas(ThreadExecutor(2)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_ray_gives_the_same_numbers() -> None:
    for one, other in zip(thetas(SerialExecutor(2)), thetas(RayExecutor(2)), strict=True):
        assert torch.equal(one, other)


def test_shared_points_train_as_one_engine_does() -> None:
    pinn = PINN(convection(), NET, points=63)
    theta = pinn.initial()
    loss, gradient = pinn.collocation.loss_and_gradient(theta)
    jacobian = pinn.collocation.jacobian(theta)
    with SerialExecutor(3) as executor, pinn.collocation.shared(executor):
        again, slope = pinn.collocation.loss_and_gradient(theta)
        torch.testing.assert_close(pinn.collocation.jacobian(theta), jacobian)
        blocks = list(pinn.collocation.linearize(theta))
    assert len(blocks) == 3
    assert again == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(slope, gradient)
    torch.testing.assert_close(sum(rows.T @ r for r, rows in blocks), gradient)


def test_a_run_in_pieces_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make() -> XPINN:
        return XPINN(convection(), NET, pieces={"t": 2}, points=40, resample_every=3)

    whole = make().fit(30, steps=11)
    file = tmp_path / "run.safetensors"
    make().fit(30, steps=5, checkpoint=file)
    rest = make().fit(30, steps=11, checkpoint=file)
    assert torch.equal(whole.network.theta, rest.network.theta)


def test_pieces_have_the_conditions_of_their_borders() -> None:
    problem = Problem(
        name="mixed",
        domain=Box(x=(0, 1), t=(0, 2)),
        residual=lambda u, x, t: u.t - u.xx,
        conditions=[
            Initial(u=0.0),
            Dirichlet(axis="x", side="lower", u=0.0),
            Neumann(axis="x", side="upper", u=1.0),
            Data(torch.tensor([[0.2, 0.5], [0.8, 1.5]]), u=torch.tensor([1.0, 2.0])),
        ],
    )
    boxes = cut(Box(x=(0, 1), t=(0, 2)), {"x": 2, "t": 2})
    found = [[type(c).__name__ for c in conditions_within(problem, box)] for box in boxes]
    assert found == [
        ["Initial", "Dirichlet", "Data"],
        ["Dirichlet"],
        ["Initial", "Neumann"],
        ["Neumann", "Data"],
    ]


def test_a_point_belongs_to_one_piece(halves: XPINN) -> None:
    field = halves.field(halves.initial())
    points = torch.tensor([[-0.1], [0.0], [0.3], [0.5], [0.7], [1.2]], dtype=torch.float64)
    assert field.owners(points).tolist() == [0, 0, 0, 0, 1, 1]
    with torch.no_grad():
        values = field(points.flip(0)).flip(0)
        torch.testing.assert_close(values[:4], field.piece(0, points[:4]))
        torch.testing.assert_close(values[4:], field.piece(1, points[4:]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: XPINN(convection(), NET, pieces={"x": 1}), "two or more"),
        (lambda: XPINN(convection(), NET, pieces={"y": 2}), "axis"),
        (lambda: TimeMarching(poisson(), NET), "time"),
        (lambda: TimeMarching(convection(), NET, windows=0), "windows"),
        (lambda: Curriculum(convection(), NET, coefficient="betta", values=(1,)), "beta"),
        (lambda: Curriculum(convection(), NET, coefficient="beta", values=()), "values: got none"),
        (
            lambda: Curriculum(
                replace(convection(), unknown=("beta",)), NET, coefficient="beta", values=(1,)
            ),
            "is unknown and trained",
        ),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()


def test_what_cannot_be_divided_is_refused() -> None:
    ball = Problem(
        name="ball", domain=Ball(x=0.0, y=0.0, radius=1.0), residual=lambda u, x, y: u.xx + u.yy,
        conditions=[Dirichlet(u=0.0)],
    )  # fmt: skip
    with pytest.raises(SettingsError, match="expected a box"):
        XPINN(ball, NET, pieces={"x": 2})
    sought = Problem(
        name="sought", domain=Box(x=(0, 1), t=(0, 1)), residual=lambda u, k: u.t - k * u.xx,
        coefficients={"k": 1.0}, unknown=("k",),
        conditions=[Initial(u=0.0), Dirichlet(axis="x", side="both", u=0.0)],
    )  # fmt: skip
    with pytest.raises(SettingsError, match="unknown coefficients"):
        TimeMarching(sought, NET)
    with pytest.raises(SettingsError, match="Jacobians"):
        XPINN(poisson(), NET, pieces={"x": 2}, points=20).fit(1, optimizer="gns")


def test_windows_of_a_problem_without_space_join_by_construction() -> None:
    spring = Problem(
        name="spring", domain=Box(t=(0, 2)), residual=lambda u, t: u.tt + 4 * u,
        conditions=[Initial(u=1.0, u_t=0.0)], reference=lambda t: cos(2 * t),
    )  # fmt: skip
    march = TimeMarching(spring, MLP(width=6, depth=1), windows=2, points=30, backend="sweep")
    result = march.fit(60, steps=80)
    assert result.largest_jump < 1e-12
    assert result.relative_l2 < 1e-2
