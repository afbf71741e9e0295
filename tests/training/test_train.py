"""One loop: the same numbers after an interruption, and an honest end whatever happens."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solvers.core import (
    CheckpointError,
    NonFiniteError,
    NotConvergedError,
    NumericalWarning,
    SettingsError,
    Status,
)
from solvers.optim import GNS, SelfScaledBroyden
from solvers.parallel import SerialExecutor, ThreadExecutor
from solvers.training import (
    FirstOrder,
    LeastSquares,
    Objective,
    Phase,
    Record,
    Search,
    Training,
    parallel_terms,
    train,
)


class Descent:
    """A search with the interface that vector searches have."""

    def __init__(self, objective: Callable[[Tensor], tuple[float, Tensor]], start: Tensor) -> None:
        self._objective, self.point, self.failures = objective, start.clone(), 0
        self._length = 1e-2
        self.refresh()

    def refresh(self) -> None:
        self.loss, self._gradient = self._objective(self.point)

    def step(self) -> bool:
        trial = self.point - self._length * self._gradient
        loss, gradient = self._objective(trial)
        if not loss < self.loss:
            self._length /= 2
            self.failures += 1
            return False
        self.point, self.loss, self._gradient, self.failures = trial, loss, gradient, 0
        self._length *= 1.1
        return True

    def state_dict(self) -> dict[str, object]:
        return {
            "point": self.point, "gradient": self._gradient, "length": self._length,
            "loss": self.loss, "failures": self.failures,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.point, self._gradient = state["point"], state["gradient"]
        self._length, self.loss, self.failures = state["length"], state["loss"], state["failures"]


PHASES = {
    "adam": lambda: [
        Phase(name="Adam", method=lambda o: FirstOrder(o, lambda p: torch.optim.Adam(p, lr=1e-2)))
    ],
    "lbfgs": lambda: [
        Phase(
            name="L-BFGS",
            method=lambda o: FirstOrder(
                o, lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe")
            ),
        )
    ],
    "gauss-newton": lambda: [
        Phase(name="GNS", method=lambda o: LeastSquares(o, GNS)),
    ],
    "search": lambda: [Phase(name="descent", method=lambda o: Search(o, Descent, most_failures=9))],
    "phases": lambda: [
        Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam), steps=7),
        Phase(name="GNS", method=lambda o: LeastSquares(o, GNS), steps=6),
        Phase(name="SGD", method=lambda o: FirstOrder(o, lambda p: torch.optim.SGD(p, lr=1e-3))),
    ],
}


def regression(seed: int = 0) -> Objective:
    """A small network fitted to a sine at random points that are drawn anew."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    points = torch.linspace(-1, 1, 24, dtype=torch.float64)[:, None]
    held = torch.linspace(-0.97, 0.97, 31, dtype=torch.float64)[:, None]

    def residual() -> Tensor:
        return (network(points) - torch.sin(3 * points)).reshape(-1) / len(points) ** 0.5

    def resample(generator: torch.Generator) -> None:
        points.copy_(2 * torch.rand(points.shape, generator=generator, dtype=torch.float64) - 1)

    def held_out() -> float:
        with torch.no_grad():
            return float((network(held) - torch.sin(3 * held)).square().mean().sqrt())

    return Objective(
        network,
        lambda: {"data": 0.5 * residual().square().sum()},
        residual=residual,
        held_out=held_out,
        resample=resample,
        generator=torch.Generator().manual_seed(seed),
        state={"points": points},
    )


@pytest.mark.parametrize("name", PHASES)
def test_a_run_in_two_parts_has_the_numbers_of_one(name: str, tmp_path: Path) -> None:
    def run(steps: int, path: Path | None = None) -> Training:
        return train(
            regression(), PHASES[name](), steps=steps, resample_every=4, record_every=5,
            checkpoint=path, on_failure="mask",
        )  # fmt: skip

    whole = run(20)
    path = tmp_path / "run.safetensors"
    for steps in (9, 14, 20):
        # The state of the process must not matter.
        torch.manual_seed(steps)
        parts = run(steps, path)
    for a, b in zip(whole.value, parts.value, strict=True):
        assert torch.equal(a, b)
    rows = {r.step: r for r in parts.history}
    for row in whole.history:
        assert rows[row.step].loss == row.loss
        assert rows[row.step].held_out == row.held_out
    assert int(parts.iterations) == 20


def test_random_numbers_inside_the_loss_go_on(tmp_path: Path) -> None:
    def noisy() -> Objective:
        torch.manual_seed(1)
        w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        return Objective([w], lambda: {"noise": (w - torch.randn(3).double()).square().sum()})

    whole = train(noisy(), PHASES["adam"](), steps=12)
    path = tmp_path / "run.safetensors"
    train(noisy(), PHASES["adam"](), steps=5, checkpoint=path)
    parts = train(noisy(), PHASES["adam"](), steps=12, checkpoint=path)
    assert torch.equal(whole.value[0], parts.value[0])


@pytest.mark.parametrize("name", ["adam", "gauss-newton", "search"])
def test_a_term_that_turns_bad_is_named_and_the_last_good_state_kept(name: str) -> None:
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    calls: list[int] = []

    def residual() -> Tensor:
        return x - 5

    def terms() -> dict[str, Tensor]:
        # The root is not finite once x has passed 1.05.
        calls.append(1)
        return {"pull": 0.5 * (x - 5).square().sum(), "wall": 0.0 * torch.sqrt(1.05 - x).sum()}

    objective = Objective([x], terms, residual=residual)
    with (
        pytest.warns(NumericalWarning, match="wall is not finite")
        if name != "search"
        else (pytest.warns(NumericalWarning))
    ):
        result = train(objective, PHASES[name](), steps=400)
    if name == "search":
        # Its line search stays on the good side, and stalls there.
        assert int(result.status) == Status.STALLED
    else:
        assert result.guilty == "wall"
        assert int(result.status) == Status.NON_FINITE
    good = x.detach().clone()
    assert bool(torch.isfinite(torch.sqrt(1.05 - good)))
    assert torch.equal(result.value[0], good)


def test_bad_gradients_and_bad_starts_are_named() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    objective = Objective([x], lambda: {"root": torch.sqrt(x.abs()).sum() + x.sum() ** 2})
    with pytest.raises(NonFiniteError, match="gradient of parameter 0"):
        train(objective, PHASES["adam"](), steps=3)
    for name in ("adam", "gauss-newton", "search"):
        bad = Objective([x], lambda: {"fine": x.sum(), "log": x.log().sum()}, residual=lambda: x)
        with pytest.raises(NonFiniteError, match="log is not finite at the first"):
            train(bad, PHASES[name](), steps=3)


def test_interruption_ends_after_the_step_and_goes_on_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def press(record: Record) -> None:
        if record.step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    first = train(
        regression(), PHASES["adam"](), steps=20, record_every=2, checkpoint=path, callback=press
    )
    assert first.is_interrupted
    assert int(first.iterations) in (8, 9)
    second = train(regression(), PHASES["adam"](), steps=20, record_every=2, checkpoint=path)
    whole = train(regression(), PHASES["adam"](), steps=20)
    assert not second.is_interrupted
    for a, b in zip(whole.value, second.value, strict=True):
        assert torch.equal(a, b)


def test_the_last_row_after_ctrl_c_is_the_state_that_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    bowl = torch.full((2,), 3.0, dtype=torch.float64, requires_grad=True)
    seen = []

    def terms() -> dict[str, torch.Tensor]:
        seen.append(bowl.detach().clone())
        if len(seen) == 7:
            signal.raise_signal(signal.SIGINT)
        return {"bowl": bowl.square().sum()}

    adam = Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam))
    options: dict[str, Any] = {"steps": 20, "record_every": 5, "checkpoint": path}
    first = train(Objective([bowl], terms), adam, **options)
    assert first.is_interrupted
    assert [record.step for record in first.history] == [1, 5, 7]
    assert int(first.iterations) == 7
    assert first.history[-1].loss == float(seen[6].square().sum())
    second = train(Objective([bowl], terms), adam, **options)
    assert [record.step for record in second.history] == [1, 5, 7, 10, 15, 20]


def test_phases_switch_when_the_loss_is_flat_and_stall_at_the_end() -> None:
    x = torch.full((2,), 3.0, dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    objective = Objective(
        [x], lambda: {"bowl": 0.5 * (scales * x).square().sum()}, residual=lambda: scales * x
    )
    schedule = [
        Phase(name="SGD", patience=20,
              method=lambda o: FirstOrder(o, lambda p: torch.optim.SGD(p, lr=0.5))),
        Phase(name="GNS", patience=20, method=lambda o: LeastSquares(o, GNS)),
    ]  # fmt: skip
    result = train(objective, schedule, steps=10_000, record_every=1, on_failure="mask")
    names = [record.phase for record in result.history]
    assert names[0] == "SGD"
    assert names[-1] == "GNS"
    assert int(result.status) == Status.STALLED
    assert float(objective.terms()["bowl"]) < 1e-25
    with pytest.raises(NotConvergedError):
        train(objective, schedule, steps=10_000, on_failure="raise")


def test_tolerance_reads_the_held_out_residual() -> None:
    result = train(
        regression(), PHASES["gauss-newton"](), steps=400, tolerance=2e-2, record_every=1
    )
    assert result.all_converged
    assert result.history[-1].held_out is not None
    assert result.history[-1].held_out < 2e-2 <= min(r.held_out for r in result.history[:-1])
    spent = train(regression(), PHASES["adam"](), steps=3, tolerance=1e-9, on_failure="mask")
    assert int(spent.status) == Status.MAX_ITERATIONS


def test_a_budget_in_seconds_is_kept() -> None:
    result = train(regression(), PHASES["adam"](), budget=0.3)
    assert result.all_converged
    assert 0.3 <= result.history[-1].seconds < 0.6


def share_of_loss(points: Tensor, parameters: list[Tensor]) -> dict[str, Tensor]:
    w, b = parameters
    return {"fit": (w * points + b - 3 * points).square().sum(), "size": w.square().sum() * 1e-3}


def test_executors_give_the_same_numbers() -> None:
    points = torch.linspace(0, 1, 40, dtype=torch.float64)
    results = []
    for executor in (None, SerialExecutor(2), ThreadExecutor(2)):
        weights = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        terms = parallel_terms(share_of_loss, lambda: points.split(10), weights, executor=executor)
        results.append(train(Objective(weights, terms), PHASES["adam"](), steps=30).value)
        if executor is not None:
            executor.close()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_files_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    adam = PHASES["adam"]()
    train(regression(), adam, steps=2, checkpoint=path, settings={"beta": 30})
    with pytest.raises(CheckpointError, match="other values of beta"):
        train(regression(), adam, steps=4, checkpoint=path, settings={"beta": 50})
    w = torch.zeros(3, requires_grad=True)
    other = Objective([w], lambda: {"w": w.square().sum()})
    with pytest.raises(CheckpointError, match="not those of this objective"):
        train(other, adam, steps=4, checkpoint=path, settings={"beta": 30})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": None}, "expected a limit"),
        ({"steps": 0}, "steps"),
        ({"budget": -1.0}, "budget"),
        ({"schedule": []}, "no phase"),
        ({"overfit": 0.5}, "overfit"),
        ({"objective": Objective([torch.ones(1, requires_grad=True)], dict)}, "no term"),
        (
            {"objective": Objective([torch.ones(1, requires_grad=True)], lambda: {"a": 1.0})},
            "expected a scalar tensor",
        ),
        (
            {
                "objective": Objective(
                    [torch.ones(1, requires_grad=True)], lambda: {"a": torch.ones(())}
                )
            },
            "do not depend on the parameters",
        ),
        (
            {
                "objective": Objective(
                    [torch.ones(1, requires_grad=True)], lambda: {"a": torch.ones(())}
                ),
                "resample_every": 5,
            },
            "cannot draw points",
        ),
    ],
)
def test_bad_settings_say_what_is_wrong(changes: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {
        "objective": regression(), "schedule": PHASES["adam"](), "steps": 3,
    }  # fmt: skip
    arguments |= changes
    with pytest.raises(SettingsError, match=words):
        train(arguments.pop("objective"), arguments.pop("schedule"), **arguments)  # type: ignore[arg-type]


def test_nothing_to_train_and_no_residual_are_refused() -> None:
    with pytest.raises(SettingsError, match="none takes gradients"):
        Objective([torch.ones(2)], dict)
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(SettingsError, match="has no residual"):
        train(Objective([x], lambda: {"x": x.sum()}), PHASES["gauss-newton"](), steps=1)


def bowl_of_a_vector() -> tuple[Objective, Tensor]:
    """A bowl whose gradient is written down; its points shift when they are drawn."""
    x = torch.full((3,), 4.0, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(3, dtype=torch.float64)

    def loss_and_gradient(vector: Tensor) -> tuple[float, Tensor]:
        away = vector.detach() - shift
        return float(0.5 * away.square().sum()), away

    def resample(generator: torch.Generator) -> None:
        shift.copy_(torch.rand(3, generator=generator, dtype=torch.float64))

    objective = Objective(
        [x],
        lambda: {"flat": torch.zeros(()), "bowl": 0.5 * (x - shift).square().sum()},
        loss_and_gradient=loss_and_gradient,
        measures={"distance": lambda: float((x.detach() - shift).norm())},
        resample=resample,
        state={"shift": shift},
    )
    return objective, shift


def test_a_written_gradient_takes_the_way_of_autograd() -> None:
    results = []
    for is_written in (True, False):
        objective, _ = bowl_of_a_vector()
        if not is_written:
            objective.loss_and_gradient = None
        results.append(train(objective, PHASES["search"](), steps=40, resample_every=7).value[0])
    assert torch.allclose(results[0], results[1], rtol=1e-14, atol=0)


def test_a_target_is_met_and_an_unknown_one_refused() -> None:
    objective, _ = bowl_of_a_vector()
    options = {"steps": 2000, "record_every": 1}
    result = train(objective, PHASES["search"](), targets={"distance": 0.5}, **options)
    distances = [record.measures["distance"] for record in result.history]
    assert result.all_converged
    assert distances[-1] < 0.5 <= min(distances[:-1])
    missed = train(
        bowl_of_a_vector()[0], PHASES["search"](), steps=3, targets={"distance": 1e-9},
        on_failure="mask",
    )  # fmt: skip
    assert int(missed.status) == Status.MAX_ITERATIONS
    with pytest.raises(SettingsError, match="expected names among"):
        train(objective, PHASES["search"](), targets={"error": 1.0}, **options)
    with pytest.raises(SettingsError, match="factor above 1"):
        train(objective, PHASES["search"](), steps=3, record_every=0.5)


def test_new_points_that_are_bad_leave_the_parameters_as_they_are() -> None:
    objective, shift = bowl_of_a_vector()
    objective._resample = lambda _: shift.fill_(float("nan"))
    before = []

    def keep(record: Record) -> None:
        before.append(objective.snapshot()[0])

    class Strict(Descent):
        def refresh(self) -> None:
            super().refresh()
            if self.loss != self.loss:
                raise NonFiniteError("loss")

    strict = Phase(name="descent", method=lambda o: Search(o, Strict))
    with pytest.warns(NumericalWarning, match="bowl is not finite"):
        result = train(objective, strict, steps=30, resample_every=5, record_every=1, callback=keep)
    assert int(result.status) == Status.NON_FINITE
    assert int(result.iterations) == 5
    assert torch.equal(result.value[0], before[-1])


def test_steps_that_are_refused_do_not_count_and_draw_points() -> None:
    objective, _ = bowl_of_a_vector()
    draws, resample = [], objective._resample
    assert resample is not None

    def draw(generator: torch.Generator) -> None:
        draws.append(1)
        resample(generator)

    objective._resample = draw

    class Refusing(Descent):
        calls = 0

        def step(self) -> bool:
            self.calls += 1
            return self.calls % 3 != 0 and super().step()

    refusing = Phase(name="descent", method=lambda o: Search(o, Refusing))
    result = train(objective, refusing, steps=10, resample_every=1000)
    assert int(result.iterations) == 10
    assert len(draws) == 4


def test_the_clock_stands_still_while_it_is_looked_at() -> None:
    objective, _ = bowl_of_a_vector()

    def spin() -> float:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        return 1.0

    objective.measures = {"slow": spin}
    result = train(objective, PHASES["search"](), steps=8, record_every=1)
    assert result.history[-1].seconds < 0.2
    assert result.history[-1].cpu_seconds < 0.2
    spent = train(bowl_of_a_vector()[0], PHASES["adam"](), cpu_budget=0.3, record_every=1.5)
    times = [record.seconds for record in spent.history]
    assert 0.3 <= spent.history[-1].cpu_seconds < 0.5
    assert times[0] >= 0.05
    assert all(later >= 1.5 * earlier for earlier, later in itertools.pairwise(times[:-1]))


def test_records_of_a_search_that_sees_one_number_have_its_terms() -> None:
    x = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)

    def terms() -> dict[str, Tensor]:
        return {"first": x[0].square().detach(), "second": x[1].square().detach()}

    objective = Objective(
        [x], terms, loss_and_gradient=lambda v: (float(v.square().sum()), 2 * v.clone())
    )
    search = Phase(name="search", method=lambda o: Search(o, SelfScaledBroyden))
    result = train(objective, search, steps=4, record_every=1, on_failure="mask")
    for record in result.history:
        assert list(record.terms) == ["first", "second"]
        assert sum(record.terms.values()) == pytest.approx(record.loss, rel=1e-12, abs=1e-300)
