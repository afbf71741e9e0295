"""Diffusion with sorption: the reference, the rows, and what training does to the arms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from constraints.systems import diffusion_sorption as ds
from constraints.systems import interpolate_scattered, relative_errors
from constraints.systems.diffusion_sorption._basis import SimilarityBasis
from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.core.testing import check_order
from solvers.kernels import Tape, evaluate, scalar


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_traced_power_is_the_power() -> None:
    x = torch.logspace(-7, 7, 200, dtype=torch.float64)
    symbol = Tape().input("x")
    (found,) = evaluate([scalar.power(symbol, -0.126)], {"x": x[:, None]})
    assert torch.allclose(found, x**-0.126, rtol=1e-13)


def test_the_reference_conserves_what_flows_in() -> None:
    """Stored and sorbed amount change by the fluxes at both ends."""
    system = ds.DiffusionSorption()
    u = ds.reference(torch.tensor([0.1]), cells=256, points=256, times=2001, rtol=1e-9)[0]
    dx, dt = 1 / 256, system.duration / 2000
    # R u_t is the rate of u + c (u + eps)^n / n with the factor c of the power in R.
    stored = u + system.sorption / system.exponent * (u + 1e-6) ** system.exponent
    gained = dx * (stored[:, -1] - stored[:, 100]).sum()
    ghost = system.outflow * system.diffusion * (u[-1] - u[-2]) / dx
    flux = system.diffusion / dx * ((1.0 - u[0]) + (ghost - u[-1]))
    flowed = dt * (flux[100:].sum() - 0.5 * (flux[100] + flux[-1]))
    assert float(gained) == pytest.approx(float(flowed), rel=1e-4)


def test_finer_grids_converge() -> None:
    """Ghost values stand at centres of cells, so that the order is one."""

    def change(h: float) -> float:
        u = [
            ds.reference(torch.tensor([0.1]), cells=n, points=64, times=3, rtol=1e-8)
            for n in (round(1 / h), round(2 / h))
        ]
        return float((u[0] - u[1])[..., 1:].norm())

    check_order(change, [1 / 64, 1 / 128, 1 / 256, 1 / 512], order=1.0, tolerance=0.2)


def test_both_signs_of_the_outflow() -> None:
    u = {s: ds.reference(torch.tensor([0.1]), ds.DiffusionSorption(outflow=s)) for s in (-1, 1)}
    assert 0 < float((u[1] - u[-1]).abs().max()) < 0.2
    for s, field in u.items():
        # u = s D u_x within the first order of the ghost value.
        slope = (field[0, -1, -1] - field[0, -2, -1]) * 128
        right = field[0, -1, -1] + slope / 256
        assert float(right) == pytest.approx(s * 5e-4 * float(slope), abs=5e-3)


def test_snapshots_are_interpolated() -> None:
    known = torch.linspace(0, 0.2, 5, dtype=torch.float64)
    solutions = ds.reference(known, cells=128)
    assert torch.allclose(ds.interpolate_snapshots(known, known, solutions), solutions)
    middle = torch.tensor([0.125], dtype=torch.float64)
    error = relative_errors(
        ds.interpolate_snapshots(middle, known, solutions), ds.reference(middle, cells=128)
    )
    assert float(error) < 2e-3
    with pytest.raises(ShapeError, match="known"):
        ds.interpolate_snapshots(middle, known[:1], solutions[:1])


def test_profiles_of_waves_stay_between_zero_and_one_half() -> None:
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    u = ds.profiles(ds.draw_initial(200, family="waves"), x)
    assert u.shape == (200, 50)
    assert 0 < float(u.min()) < 0.05 < 0.45 < float(u.max()) < 0.5
    # Five numbers make five independent directions.
    assert torch.linalg.matrix_rank(u - u.mean(0), rtol=1e-3) > 5
    # No flow through either end.
    slope = torch.func.jvp(
        lambda x: ds.profiles(ds.draw_initial(3, family="waves"), x), (x,), (torch.ones_like(x),)
    )[1]
    assert slope[:, [0, -1]].abs().max() < 1e-12


def test_the_reference_starts_from_profiles() -> None:
    waves = ds.draw_initial(2, family="waves")
    u = ds.reference(waves, cells=256, points=64, times=3)
    x = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    assert torch.allclose(u[..., 0], ds.profiles(waves, x).reshape(2, 64, 4).mean(2), atol=1e-12)
    constant = torch.zeros(1, 5, dtype=torch.float64)
    same = [
        ds.reference(one, cells=64, points=64, times=3) for one in (constant, constant[:, 0] + 0.25)
    ]
    assert torch.equal(*same)


def test_scattered_solutions_are_interpolated() -> None:
    """Exactly where they are known; lines in one parameter; better the more there are."""
    known = torch.linspace(0, 0.2, 5, dtype=torch.float64)
    solutions = ds.reference(known, cells=128, times=3)
    middle = torch.tensor([0.04, 0.125], dtype=torch.float64)
    found = interpolate_scattered(middle[:, None], known[:, None], solutions)
    assert torch.allclose(found, ds.interpolate_snapshots(middle, known, solutions), atol=1e-10)

    def field(c: torch.Tensor) -> torch.Tensor:
        return torch.sin(c.sum(1, keepdim=True)) * torch.ones(1, 7, dtype=torch.float64)

    g = torch.Generator().manual_seed(0)
    places = torch.rand(400, 3, generator=g, dtype=torch.float64)
    test = torch.rand(20, 3, generator=g, dtype=torch.float64)
    errors = [
        float((interpolate_scattered(test, places[:n], field(places[:n])) - field(test)).norm())
        for n in (25, 100, 400)
    ]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]
    with pytest.raises(ShapeError, match="known"):
        interpolate_scattered(test, places[:1], field(places[:1]))
    with pytest.raises(NonFiniteError, match="solutions"):
        interpolate_scattered(test, places[:9], field(places[:9]) * torch.nan)


def test_the_similarity_coordinate_has_its_derivatives() -> None:
    basis = SimilarityBasis(3, width=6)
    condition = torch.tensor([[0.2]], dtype=torch.float64)
    x = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for place, name in enumerate(("u_x", "u_t")):
        direction = torch.zeros_like(x)
        direction[:, place] = 1
        exact = torch.func.jvp(lambda x: basis(x, condition, ("u",)), (x,), (direction,))[1]
        assert torch.allclose(basis(x, condition, (name,)), exact, rtol=1e-11)


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="outflow"):
        ds.DiffusionSorption(outflow=2)
    with pytest.raises(SettingsError, match="porosity"):
        ds.DiffusionSorption(porosity=1.0)
    with pytest.raises(SettingsError, match="divisor"):
        ds.reference(torch.tensor([0.1]), cells=100, points=64)
    with pytest.raises(ShapeError, match="initial"):
        ds.reference(torch.zeros(2, 7))
    with pytest.raises(ShapeError, match="family 'constant'"):
        ds.train(ds.Arm(functions=1), steps=0).predict(torch.zeros(2, 5))
    with pytest.raises(SettingsError, match="did you mean 'waves'"):
        ds.train(ds.Arm(functions=1), family="wave")
    with pytest.raises(SettingsError, match="did you mean 'diffgrad'"):
        ds.train(ds.Arm(functions=1), optimizer="difgrad")


def test_a_hard_arm_obeys_before_any_training() -> None:
    initial = torch.tensor([0.05, 0.15], dtype=torch.float64)
    solution = ds.reference(initial)
    soft, hard = (ds.train(ds.Arm(functions=n), steps=0).predict(initial) for n in (1, 64))
    errors = [float(relative_errors(one, solution).max()) for one in (soft, hard)]
    assert errors[1] < 0.05 < 0.5 < errors[0]


def test_a_hard_arm_obeys_profiles_too() -> None:
    initial = ds.draw_initial(2, family="waves")
    solution = ds.reference(initial, cells=512)
    arms = (ds.Arm(functions=n, points=1024) for n in (1, 64))
    soft, hard = (ds.train(arm, family="waves", steps=0).predict(initial) for arm in arms)
    errors = [float(relative_errors(one, solution).max()) for one in (soft, hard)]
    assert errors[1] < 0.2 < 0.5 < errors[0]


@pytest.mark.slow
def test_training_lowers_loss_and_error() -> None:
    initial = torch.tensor([0.05, 0.15], dtype=torch.float64)
    solution = ds.reference(initial)
    arm = ds.Arm(functions=16, points=512)
    before, after = (ds.train(arm, steps=n, samples=2) for n in (1, 40))
    assert sum(after.losses[-5:]) / 5 < 0.7 * before.losses[0]
    errors = [float(relative_errors(f.predict(initial), solution).mean()) for f in (before, after)]
    assert errors[1] < errors[0]
