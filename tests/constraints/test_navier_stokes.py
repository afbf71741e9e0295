"""Vorticity on a torus: the reference, initial fields, the basis, and what training does."""

from __future__ import annotations

import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from constraints.experts import Partition
from constraints.systems import navier_stokes as ns
from constraints.systems import relative_errors
from constraints.systems.navier_stokes._spectral import FEATURES, coefficients, evaluate
from solvers.core import (
    CheckpointError,
    NotConvergedError,
    NumericalWarning,
    SettingsError,
    ShapeError,
)
from solvers.core.testing import check_order
from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor
from solvers.training import Record

SIZES: dict[str, Any] = {"cells": 16, "modes": 5, "width": 4, "points": 96, "slabs": 10}
SOFT = ns.Arm(is_soft=True, **SIZES)
HARD = ns.Arm(fields=4, **SIZES)
APART = ns.Arm(fields=4, experts=(2, 1), **SIZES)
HELD = ns.Arm(fields=4, experts=(2, 2), is_held=True, **SIZES)
ARMS = pytest.mark.parametrize("arm", [SOFT, HELD], ids=["soft", "held"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def grid(n: int) -> Tensor:
    x = torch.arange(n, dtype=torch.float64) / n
    return torch.cartesian_prod(x, x)


def random_points(count: int, d: int = 3) -> Tensor:
    return torch.rand(count, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---- the reference ----


def test_vortices_of_taylor_and_green_decay_to_rounding() -> None:
    """Advection vanishes for fields of one wave length, also for several waves of that length."""
    system = ns.NavierStokes(viscosity=3e-3, duration=2.0)
    x, y = (2 * math.pi * grid(32)).T.reshape(2, 32, 32)
    initial = torch.stack(
        [torch.sin(x) * torch.sin(2 * y), torch.cos(2 * x + y) - torch.sin(x - 2 * y)]
    )
    w = ns.reference(initial, system, times=3, steps=40)
    rate = 3e-3 * (2 * math.pi) ** 2 * 5
    decay = torch.exp(-rate * torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    assert (w - decay[:, None, None] * initial[:, None]).abs().max() < 1e-13


def test_steps_are_of_fourth_order() -> None:
    initial = ns.initial_fields(2, cells=16, family="vortices")
    system = ns.NavierStokes(viscosity=1e-3, duration=2.0)

    def change(h: float) -> float:
        u = [ns.reference(initial, system, times=2, steps=round(k / h)) for k in (1, 2)]
        return float((u[0] - u[1]).norm())

    check_order(change, [1 / 32, 1 / 64, 1 / 128, 1 / 256], order=4.0, tolerance=0.15)


def test_energy_and_enstrophy_change_by_viscosity_alone() -> None:
    """Energy falls by twice the viscosity times the enstrophy, enstrophy by its own gradients."""
    initial = ns.initial_fields(2, cells=32)
    for viscosity in (1e-12, 1e-3):
        system = ns.NavierStokes(viscosity=viscosity, duration=0.5)
        w = ns.reference(initial, system, times=41, steps=160)
        known = coefficients(w, 15)
        psi_x, psi_y, w_x, w_y = evaluate(known, grid(32), ("psi_x", "psi_y", "w_x", "w_y"))
        energy = 0.5 * (psi_x**2 + psi_y**2).mean(-1)
        enstrophy = 0.5 * w.square().mean((2, 3))
        slopes = 0.5 * (w_x**2 + w_y**2).mean(-1)
        for kept, loss in ((energy, enstrophy), (enstrophy, slopes)):
            lost = 2 * viscosity * torch.trapezoid(loss, dx=0.5 / 40, dim=1)
            assert torch.allclose(kept[:, 0] - kept[:, -1], lost, rtol=1e-3, atol=1e-6)


def test_shifted_fields_have_shifted_solutions() -> None:
    initial = ns.initial_fields(1, cells=16)
    w = ns.reference(initial, times=2, steps=100)
    shifted = ns.reference(initial.roll((3, 5), (1, 2)), times=2, steps=100)
    assert torch.allclose(shifted, w.roll((3, 5), (2, 3)), atol=1e-11)


def test_what_blows_up_is_named_and_the_others_kept() -> None:
    initial = ns.initial_fields(3, cells=32)
    initial[1] *= 1e4
    with pytest.raises(NotConvergedError, match=r"fields \[1\] of 3") as error:
        ns.reference(initial, times=2, steps=100)
    kept: Any = error.value.solution
    alone = ns.reference(initial[::2], times=2, steps=100)
    assert torch.allclose(kept[::2], alone, atol=1e-12)


# ---- initial fields ----


@pytest.mark.parametrize("family", ["smooth", "rough", "vortices"])
def test_fields_are_the_same_on_all_grids(family: str) -> None:
    coarse, fine = (ns.initial_fields(3, cells=n, family=family) for n in (32, 64))
    assert (coarse - fine[:, ::2, ::2]).abs().max() < 1e-12
    assert coarse.mean((1, 2)).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["smooth", "rough"])
def test_random_fields_have_their_covariance(family: str) -> None:
    w = ns.initial_fields(3000, cells=16, family=family).flatten(1)
    found = (w.T @ w / len(w))[0].reshape(16, 16)
    x, y = grid(16).T.reshape(2, 16, 16)
    if family == "smooth":
        kernel = torch.exp(
            -2 * (torch.sin(math.pi * x) ** 2 + torch.sin(math.pi * y) ** 2) / 0.8**2
        )
        expected = kernel - kernel.mean()
    else:
        # Waves beyond twelve lengths are left out: 1e-4 of the variance.
        k = torch.arange(-12, 13, dtype=torch.float64)
        modes = torch.cartesian_prod(k, k)
        power = ((2 * math.pi * modes).square().sum(1) + 49.0) ** -5
        power[modes.abs().sum(1) == 0] = 0
        waves = torch.cos(2 * math.pi * (modes @ torch.stack([x.flatten(), y.flatten()])))
        expected = ((power / power.sum()) @ waves).reshape(16, 16)
    # Four standard errors of a covariance.
    assert (found - expected).abs().max() < 4 * math.sqrt(2 / 3000)


# ---- features ----


def test_features_of_trigonometric_polynomials() -> None:
    known = coefficients(ns.initial_fields(2, cells=16), 5)
    points = random_points(20, 2)
    named = dict(zip(FEATURES, evaluate(known, points, FEATURES), strict=True))

    def along(name: str, axis: int) -> Tensor:
        direction = torch.zeros_like(points)
        direction[:, axis] = 1
        return torch.func.jvp(lambda x: evaluate(known, x, (name,))[0], (points,), (direction,))[1]

    assert torch.allclose(named["w_x"], along("w", 0))
    assert torch.allclose(named["w_y"], along("w", 1))
    assert torch.allclose(named["laplacian"], along("w_x", 0) + along("w_y", 1))
    assert torch.allclose(-named["w"], along("psi_x", 0) + along("psi_y", 1))
    assert torch.allclose(along("psi_x", 1), along("psi_y", 0))
    with pytest.raises(SettingsError, match="w_z"):
        evaluate(known, points, ("w_z",))


def test_derivatives_in_time_are_those_of_the_reference() -> None:
    system = ns.NavierStokes(viscosity=1e-3, duration=1e-3)
    initial = ns.initial_fields(2, cells=32)
    # On the modes that products keep.
    x = grid(32)
    (kept,) = evaluate(coefficients(initial, 10), x, ("w",))
    w = ns.reference(kept.reshape(initial.shape), system, times=3, steps=4)
    first, second = system.derivatives(initial)
    half, whole = (one - w[:, 0] for one in (w[:, 1], w[:, 2]))
    for found, expected in ((4 * half - whole, first), (4 * (whole - 2 * half), second)):
        found, expected = (coefficients(one, 10) for one in (found, expected))
        assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_the_equation_holds_for_vortices_that_decay() -> None:
    system = ns.NavierStokes(viscosity=1e-2, duration=0.5)
    x, y = (2 * math.pi * grid(16)).T.reshape(2, 1, 16, 16)
    initial = torch.sin(x) * torch.sin(y)
    places, rate = random_points(50), 1e-2 * 8 * math.pi**2 * 0.5
    lost = torch.exp(-rate * places[:, 2])
    w, *features = evaluate(coefficients(initial, 5), places[:, :2], FEATURES)
    departure = [-rate * lost * w, *((lost - 1) * one for one in features)]
    r = system.equation(*departure, *system.lift(initial, places))
    assert r.abs().max() < 1e-12
    assert (
        system.equation(*(2 * one for one in departure), *system.lift(initial, places)).abs().max()
        > 0.1
    )


# ---- the basis ----


@pytest.fixture(scope="module")
def basis() -> ns.OperatorBasis:
    return ns.OperatorBasis(4, 2, system=ns.NavierStokes(duration=0.1), cells=16, modes=5, width=4)


def test_functions_have_their_derivatives_and_vanish_at_the_start(basis: ns.OperatorBasis) -> None:
    condition, places = ns.initial_fields(2, cells=16), random_points(10)
    for axis, name in enumerate(("w_x", "w_y", "w_t")):
        direction = torch.zeros_like(places)
        direction[:, axis] = 1
        exact = torch.func.jvp(lambda x: basis(x, condition, ("w",)), (places,), (direction,))[1]
        assert torch.allclose(basis(places, condition, (name,)), exact, rtol=1e-9, atol=1e-12)
    places[:, 2] = 0
    assert basis(places, condition, ("w",)).abs().max() == 0


def test_the_network_knows_no_place(basis: ns.OperatorBasis) -> None:
    condition = ns.initial_fields(1, cells=16)
    shifted = basis.fields(condition.roll((3, 5), (1, 2)))
    assert torch.allclose(shifted, basis.fields(condition).roll((3, 5), (2, 3)), atol=1e-12)


def test_a_soft_arm_begins_as_the_taylor_polynomial(basis: ns.OperatorBasis) -> None:
    condition, places = ns.initial_fields(2, cells=16), random_points(10)
    with torch.no_grad():
        kept = basis.last.clone()
        basis.last.zero_()
        w = basis(places, condition, ("w",))[:, :, 0] @ basis.own_coefficients()
        basis.last.copy_(kept)
    t = places[:, 2]
    known = coefficients(torch.stack(basis.system.derivatives(condition)), 5)
    first, second = evaluate(known, places[:, :2], ("w",))[0]
    assert torch.allclose(w, t * first + 0.5 * t**2 * second, atol=1e-13)


# ---- arms ----


def train(arm: ns.Arm, **options: Any) -> ns.Fit:
    return ns.train(arm, **({"steps": 4, "samples": 2, "seed": 3} | options))


def press_ctrl_c_at(step: int) -> Callable[[Record], None]:
    def press(record: Record) -> None:
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return press


def assert_same(one: ns.Fit, other: ns.Fit) -> None:
    assert one.losses == other.losses
    assert one.iterations == other.iterations
    weights = zip(one.basis.parameters(), other.basis.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def interrupt_and_resume(
    arm: ns.Arm, path: Path, first: Executor | None = None, second: Executor | None = None
) -> ns.Fit:
    torn = train(arm, checkpoint=path, callback=press_ctrl_c_at(2), executor=first)
    assert len(torn.losses) == 2
    return train(arm, checkpoint=path, executor=second)


@ARMS
def test_an_interruption_leaves_no_trace(arm: ns.Arm, tmp_path: Path) -> None:
    whole = train(arm)
    assert_same(interrupt_and_resume(arm, tmp_path / "run.safetensors"), whole)
    assert len(whole.iterations) == (0 if arm is SOFT else 4)


def test_a_run_goes_on_with_another_executor(tmp_path: Path) -> None:
    with SerialExecutor(2) as serial, ThreadExecutor(2) as threads:
        resumed = interrupt_and_resume(APART, tmp_path / "run.safetensors", threads, serial)
    assert_same(resumed, train(APART))


@pytest.mark.slow
def test_a_run_goes_on_with_ray(tmp_path: Path) -> None:
    with RayExecutor(2) as executor:
        resumed = interrupt_and_resume(HELD, tmp_path / "run.safetensors", executor, executor)
    assert_same(resumed, train(HELD))


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(HARD, steps=2, checkpoint=path)
    for changed in ({"seed": 4}, {"family": "rough"}, {"optimizer": "diffgrad"}):
        with pytest.raises(CheckpointError, match=next(iter(changed))):
            train(HARD, **({"steps": 2, "checkpoint": path} | changed))


def test_a_solve_that_fails_leaves_the_state_before_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls, solve = tmp_path / "run.safetensors", [], ns.Fit.solve

    def fail_third(fit: ns.Fit, initial: Tensor, *, seed: int = 0) -> Any:
        calls.append(seed)
        if len(calls) == 3:
            assert fit.mixture is not None
            fit.mixture.solver = type(fit.mixture.solver)(tolerance=1e-300, max_iterations=1)
        return solve(fit, initial, seed=seed)

    monkeypatch.setattr(ns.Fit, "solve", fail_third)
    with pytest.raises(NotConvergedError, match=r"step 3 failed(.|\n)*MAX_ITERATIONS"):
        train(HARD, checkpoint=path)
    monkeypatch.undo()
    assert_same(train(HARD, checkpoint=path), train(HARD))


@ARMS
def test_a_saved_fit_predicts_the_same(arm: ns.Arm, tmp_path: Path) -> None:
    arm = replace(arm, slabs=2)
    fit = train(arm, system=ns.NavierStokes(duration=0.5), family="vortices", steps=1)
    loaded = ns.Fit.load(fit.save(tmp_path / "fit.safetensors"))
    assert (loaded.arm, loaded.system, loaded.family) == (fit.arm, fit.system, "vortices")
    initial = ns.initial_fields(1, cells=16)
    assert torch.equal(loaded.predict(initial[:1], times=3), fit.predict(initial[:1], times=3))


def test_fields_are_followed_one_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from constraints.systems.navier_stokes import _training

    monkeypatch.setattr(_training, "_CHUNK", 2)
    system = ns.NavierStokes(duration=1.0)
    fit = train(replace(HARD, slabs=4), system=system, steps=0)
    initial = ns.initial_fields(3, cells=16)
    # Times that are no ends of slabs too.
    w = fit.predict(initial, times=8)
    assert w.shape == (3, 8, 16, 16)
    assert torch.equal(w[:, 0], initial)
    assert torch.allclose(fit.predict(initial[2:], times=8), w[2:], atol=1e-9)
    assert torch.allclose(fit.predict(initial, times=2)[:, -1], w[:, -1], atol=1e-12)


def test_fields_that_are_lost_are_named() -> None:
    initial = ns.initial_fields(2, cells=16)
    initial[1] *= 1e60
    fit = train(replace(SOFT, slabs=8), steps=0, system=ns.NavierStokes(duration=0.1))
    with pytest.warns(NumericalWarning, match=r"fields \[1\] of 2"):
        w = fit.predict(initial, times=2)
    assert w[0].isfinite().all()
    none = initial[:0]
    assert fit.predict(none, times=2).shape == ns.reference(none, times=2).shape == (0, 2, 16, 16)


def test_a_hard_arm_follows_where_a_soft_one_is_lost() -> None:
    """Untrained, with slabs that carry the fluid over several cells."""
    sizes: dict[str, Any] = {"cells": 24, "modes": 8, "width": 4, "slabs": 20}
    initial = ns.initial_fields(2, cells=48)
    solution = ns.reference(initial, times=3, steps=200, points=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        soft, hard = (
            train(arm, steps=0).predict(initial[:, ::2, ::2], times=3)
            for arm in (ns.Arm(is_soft=True, **sizes), ns.Arm(fields=12, points=400, **sizes))
        )
    errors = [
        relative_errors(one, solution).nan_to_num(99.0).clamp(max=99.0) for one in (soft, hard)
    ]
    frozen = relative_errors(solution[:, :1].expand_as(solution), solution)
    assert (errors[1] < frozen).all()
    assert (2 * errors[1] < errors[0]).all()


@pytest.mark.slow
def test_training_lowers_the_error() -> None:
    initial = ns.initial_fields(2, cells=64, generator=torch.Generator().manual_seed(9))
    solution = ns.reference(initial, times=3, points=32)
    errors = [
        relative_errors(
            ns.train(ns.Arm(), steps=n).predict(initial[:, ::2, ::2], times=3), solution
        )
        for n in (0, 50)
    ]
    assert float(errors[1].mean()) < 0.9 * float(errors[0].mean())


def test_the_torus_has_interfaces_around_it() -> None:
    plain, wrapped = (
        Partition.boxes([0, 0], [1, 1], [3, 2], periodic=axes) for axes in ((), (0, 1))
    )
    assert len(plain.interfaces) == 2 * 2 + 3
    assert len(wrapped.interfaces) == 3 * 2 + 3 * 2
    last = [face for face in wrapped.interfaces if float(face.lower[face.axis]) == 1.0]
    assert sorted((f.first, f.second) for f in last if f.axis == 0) == [(4, 0), (5, 1)]
    with pytest.raises(SettingsError, match="periodic"):
        Partition.boxes([0], [1], [2], periodic=(1,))


def test_held_experts_do_not_jump_around_the_torus() -> None:
    initial = ns.initial_fields(1, cells=16)
    jumps = []
    for arm in (ns.Arm(fields=4, experts=(2, 2), **SIZES), HELD):
        with torch.no_grad():
            field: Any = train(arm, steps=0).solve(initial)
            jumps.append(float(field.jump(("w",)).mean()))
    assert jumps[1] < 0.1 * jumps[0]


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="viscosity"):
        ns.NavierStokes(viscosity=-1.0)
    with pytest.raises(SettingsError, match="did you mean 'smooth'"):
        ns.initial_fields(1, family="smoth")
    with pytest.raises(SettingsError, match="times"):
        ns.reference(torch.zeros(1, 8, 8), times=4, steps=100)
    with pytest.raises(SettingsError, match="points"):
        ns.reference(torch.zeros(1, 8, 8), points=3)
    with pytest.raises(ShapeError, match="initial"):
        ns.reference(torch.zeros(8, 8))
    with pytest.raises(ShapeError, match="initial"):
        train(HARD, steps=0).predict(torch.zeros(1, 8, 8))
    for bad in ({"experts": (0, 1)}, {"is_soft": True, "experts": (2, 1)}, {"is_held": True}):
        with pytest.raises(SettingsError, match="experts|is_held"):
            ns.Arm(**bad)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="optimizer"):
        train(HARD, optimizer="lbfgs")
    with pytest.raises(SettingsError, match="modes"):
        train(ns.Arm(cells=16, modes=8), steps=0)
    with pytest.raises(SettingsError, match="degrees"):
        train(ns.Arm(is_soft=True, degrees=1), steps=0)
