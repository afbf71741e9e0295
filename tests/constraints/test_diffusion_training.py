"""Training on diffusion with sorption: interruptions, files, executors, bad input."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from constraints.systems import diffusion_sorption as ds
from solvers.core import CheckpointError, NotConvergedError, SettingsError
from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor
from solvers.training import Record

SOFT = ds.Arm(functions=1, width=8, points=64)
HARD = ds.Arm(functions=4, width=8, points=64)
HELD = ds.Arm(functions=4, experts=3, is_held=True, width=8, points=96)
APART = ds.Arm(functions=4, experts=3, is_local=False, width=8, points=96)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(arm: ds.Arm, **options: Any) -> ds.Fit:
    return ds.train(arm, **({"steps": 5, "samples": 2, "seed": 3} | options))


def press_ctrl_c_at(step: int) -> Callable[[Record], None]:
    def press(record: Record) -> None:
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return press


def assert_same(one: ds.Fit, other: ds.Fit) -> None:
    assert one.losses == other.losses
    assert one.iterations == other.iterations
    weights = zip(one.basis.parameters(), other.basis.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def interrupt_and_resume(
    arm: ds.Arm, path: Path, first: Executor | None = None, second: Executor | None = None
) -> ds.Fit:
    torn = train(arm, checkpoint=path, callback=press_ctrl_c_at(2), executor=first)
    assert torn.training is not None
    assert torn.training.is_interrupted
    assert len(torn.losses) == 2
    resumed = train(arm, checkpoint=path, executor=second)
    assert resumed.training is not None
    assert not resumed.training.is_interrupted
    assert resumed.seconds > torn.seconds
    return resumed


@pytest.mark.parametrize("arm", [SOFT, HARD, HELD, APART], ids=["soft", "hard", "held", "apart"])
def test_an_interruption_leaves_no_trace(arm: ds.Arm, tmp_path: Path) -> None:
    whole = train(arm)
    resumed = interrupt_and_resume(arm, tmp_path / "run.safetensors")
    assert_same(resumed, whole)
    assert len(whole.iterations) == (0 if arm is SOFT else 5)
    # The run is over, so that going on changes nothing.
    assert_same(train(arm, checkpoint=tmp_path / "run.safetensors"), whole)


def test_a_run_goes_on_with_another_executor(tmp_path: Path) -> None:
    with SerialExecutor(2) as serial, ThreadExecutor(2) as threads:
        resumed = interrupt_and_resume(HELD, tmp_path / "run.safetensors", threads, serial)
    assert_same(resumed, train(HELD))


@pytest.mark.slow
@pytest.mark.parametrize("arm", [HELD, APART], ids=["held", "apart"])
def test_a_run_goes_on_with_ray(arm: ds.Arm, tmp_path: Path) -> None:
    with RayExecutor(2) as executor:
        resumed = interrupt_and_resume(arm, tmp_path / "run.safetensors", executor, executor)
    assert_same(resumed, train(arm))


def test_a_budget_ends_early_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    assert len(train(HARD, checkpoint=path, budget=1e-9).losses) == 1
    assert_same(train(HARD, checkpoint=path, budget=1e9), train(HARD))


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(HARD, steps=1, checkpoint=path)
    for changed in ({"seed": 4}, {"samples": 1}, {"system": ds.DiffusionSorption(outflow=1)}):
        with pytest.raises(CheckpointError, match=next(iter(changed))):
            train(HARD, **({"steps": 1, "checkpoint": path} | changed))
    with pytest.raises(CheckpointError, match="arm"):
        train(SOFT, steps=1, checkpoint=path)


@pytest.mark.parametrize("arm", [SOFT, HELD], ids=["soft", "held"])
def test_a_saved_fit_predicts_the_same(arm: ds.Arm, tmp_path: Path) -> None:
    fit = train(arm, system=ds.DiffusionSorption(outflow=1), steps=1)
    loaded = ds.Fit.load(fit.save(tmp_path / "fit.safetensors"))
    assert (loaded.arm, loaded.system) == (fit.arm, fit.system)
    initial = torch.tensor([0.05, 0.15], dtype=torch.float64)
    sizes = {"points": 8, "times": 3}
    assert torch.equal(loaded.predict(initial, **sizes), fit.predict(initial, **sizes))
    assert not loaded.losses


def test_a_saved_fit_knows_its_family(tmp_path: Path) -> None:
    fit = train(HARD, family="waves", steps=1)
    loaded = ds.Fit.load(fit.save(tmp_path / "fit.safetensors"))
    waves = ds.draw_initial(2, family="waves")
    assert loaded.family == "waves"
    assert torch.equal(loaded.predict(waves, times=3), fit.predict(waves, times=3))


@pytest.mark.parametrize("optimizer", ["adamw", "diffgrad", "rmsprop", "sgd"])
def test_every_optimizer_trains_and_goes_on(optimizer: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "learning_rate": 1e-2, "steps": 6}
    whole = train(SOFT, **options)
    path = tmp_path / "run.safetensors"
    train(SOFT, checkpoint=path, callback=press_ctrl_c_at(3), **options)
    assert_same(train(SOFT, checkpoint=path, **options), whole)
    assert whole.losses[1:] != train(SOFT, **(options | {"optimizer": "adam"})).losses[1:]


def test_a_solve_that_fails_leaves_the_state_before_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls, solve = tmp_path / "run.safetensors", [], ds.Fit.solve

    def fail_third(fit: ds.Fit, initial: torch.Tensor, *, seed: int = 0) -> Any:
        calls.append(seed)
        if len(calls) == 3:
            assert fit.mixture is not None
            fit.mixture.solver = type(fit.mixture.solver)(tolerance=1e-300, max_iterations=1)
        return solve(fit, initial, seed=seed)

    monkeypatch.setattr(ds.Fit, "solve", fail_third)
    with pytest.raises(NotConvergedError, match=r"step 3 failed(.|\n)*MAX_ITERATIONS 2"):
        train(HELD, checkpoint=path)
    monkeypatch.undo()
    assert_same(train(HELD, checkpoint=path), train(HELD))


def test_no_network_is_read_from_a_checkpoint_of_a_run(tmp_path: Path) -> None:
    train(SOFT, steps=1, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(CheckpointError):
        ds.Fit.load(tmp_path / "run.safetensors")


def test_terms_of_the_loss_are_told() -> None:
    records: list[Record] = []
    fit = train(HARD, steps=2, callback=records.append)
    for record, loss in zip(records, fit.losses, strict=True):
        assert set(record.terms) == {"equation", "initial", "left", "right"}
        assert sum(record.terms.values()) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("name", ["functions", "experts", "width", "points"])
def test_an_arm_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        replace(HELD, **{name: 0})  # type: ignore[arg-type]
