"""Orders, independence of items, agreement with SciPy and torchdiffeq, ends with a status."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from solvers.core import NotConvergedError, SettingsError, ShapeError, Status
from solvers.ode import compare_gradients, integrate, integrate_steps


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], -torch.sin(y[:, 0])], -1)


def van_der_pol(mu: Tensor):  # type: ignore[no-untyped-def]
    def rate(t: Tensor, y: Tensor) -> Tensor:
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1 - x * x) * v - x], -1)

    return rate


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "radau5", "auto"])
def test_error_follows_the_tolerance_at_and_between_steps(method: str) -> None:
    times = torch.linspace(0, 10, 57, dtype=torch.float64)
    start = double(1.0, 0.0)[None]
    exact = torch.stack([times.cos(), -times.sin()], -1)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        result = integrate(
            lambda t, y: torch.stack([y[:, 1], -y[:, 0]], -1),
            start, times, method=method, rtol=rtol, atol=rtol,
        )  # fmt: skip
        errors.append(float((result.value[:, 0] - exact).abs().max()))
        assert errors[-1] < 200 * rtol
    assert errors[2] < 1e-2 * errors[1] * 10
    assert errors[1] < 1e-1 * errors[0]


def test_time_runs_backward_and_back_to_the_start() -> None:
    start = double(0.4, 1.1, -1.0, 0.3).reshape(2, 2)
    ahead = integrate(pendulum, start, [0.0, 3.0], rtol=1e-10, atol=1e-12)
    back = integrate(pendulum, ahead.value[-1], [3.0, 0.0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(back.value[-1], start, rtol=0, atol=1e-8)


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_an_item_does_not_depend_on_its_company(batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(batch, 2, generator=generator, dtype=torch.float64)
    times = torch.linspace(0, 2, 5, dtype=torch.float64)
    together = integrate(pendulum, start, times)
    for k in range(batch):
        alone = integrate(pendulum, start[k : k + 1], times)
        # Up to the rounding of vector functions, which depends on the place in a vector.
        torch.testing.assert_close(together.value[:, k], alone.value[:, 0], rtol=0, atol=1e-11)
        assert abs(int(together.iterations[k]) - int(alone.iterations[0])) <= 1


def test_steps_and_times_belong_to_items() -> None:
    rates = double(1.0, 100.0)[:, None]
    times = torch.stack([torch.linspace(0, 5, 11), torch.linspace(1, 1.05, 11)], 1).double()
    result = integrate(lambda t, y: -rates * y, torch.ones(2, 1).double(), times, method="dopri5")
    exact = torch.exp(-rates[:, 0] * (times - times[0]))
    torch.testing.assert_close(result.value[..., 0], exact, rtol=1e-4, atol=1e-7)
    assert int(result.iterations[0]) != int(result.iterations[1])


@pytest.mark.parametrize("method", ["radau5", "auto"])
def test_a_stiff_and_lazy_batch_agrees_with_scipy_while_one_item_fails(method: str) -> None:
    from scipy.integrate import solve_ivp

    mu = double(1.0, 30.0, 200.0, 1.0)
    start = double(2.0, 0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0).reshape(4, 2)
    rate = van_der_pol(mu)

    def poisoned(t: Tensor, y: Tensor) -> Tensor:
        bad = torch.tensor([False, False, False, True])[:, None] & (t > 1.0)
        return torch.where(bad, torch.nan, rate(t, y))

    times = torch.linspace(0, 8, 9, dtype=torch.float64)
    result = integrate(
        poisoned, start, times, method=method, rtol=1e-6, atol=1e-8, on_failure="mask"
    )
    assert result.status.tolist() == [0, 0, 0, Status.NON_FINITE]
    for k in range(3):
        known = solve_ivp(
            lambda t, y, m=float(mu[k]): [y[1], m * (1 - y[0] ** 2) * y[1] - y[0]],
            (0, 8), start[k].numpy(), method="Radau", rtol=1e-10, atol=1e-12, t_eval=times.numpy(),
        )  # fmt: skip
        np.testing.assert_allclose(result.value[:, k].numpy(), known.y.T, rtol=2e-4, atol=2e-5)
    # The failed item keeps the last good state, and says until when it is good.
    assert 0.9 < float(result.last_time[3]) <= 1.0
    assert bool(torch.isfinite(result.value).all())
    torch.testing.assert_close(result.last_state[3], result.value[-1, 3])


def test_explicit_steps_report_stiffness_with_advice() -> None:
    rates = double(1.0, 1e6)[:, None]
    with pytest.raises(NotConvergedError, match="implicit method") as caught:
        integrate(
            lambda t, y: -rates * (y - torch.cos(t)), torch.zeros(2, 1).double(), [0.0, 1.0],
            method="dopri5", max_steps=500,
        )  # fmt: skip
    result = caught.value.solution
    assert result.status.tolist() == [Status.CONVERGED, Status.STIFF]
    assert float(result.last_time[1]) < 1
    implicit = integrate(
        lambda t, y: -rates * (y - torch.cos(t)), torch.zeros(2, 1).double(), [0.0, 1.0]
    )
    assert implicit.all_converged
    assert float(implicit.value[-1, 1, 0]) == pytest.approx(math.cos(1.0), abs=1e-5)
    assert int(implicit.iterations[1]) < 500


def test_blow_up_ends_at_the_singularity_and_limits_end_the_rest() -> None:
    start = double(1.0, 0.1)[:, None]
    blown = integrate(lambda t, y: y * y, start, [0.0, 2.0], method="dopri5", on_failure="mask")
    assert blown.status.tolist() == [Status.STIFF, Status.CONVERGED]
    assert float(blown.last_time[0]) == pytest.approx(1.0, abs=1e-3)
    few = integrate(pendulum, torch.ones(1, 2).double(), [0.0, 50.0], max_steps=5,
                    on_failure="mask")  # fmt: skip
    assert few.status.tolist() == [Status.MAX_ITERATIONS]
    assert float(few.residual_norm[0]) == pytest.approx(1 - float(few.last_time[0]) / 50)
    bad = integrate(pendulum, double(math.nan, 0.0)[None], [0.0, 1.0], on_failure="mask")
    assert bad.status.tolist() == [Status.NON_FINITE]


def test_dopri5_agrees_with_torchdiffeq() -> None:
    from torchdiffeq import odeint

    start = double(0.4, 1.1)[None]
    times = torch.linspace(0, 5, 11, dtype=torch.float64)
    ours = integrate(pendulum, start, times, method="dopri5", rtol=1e-10, atol=1e-12)
    theirs = odeint(pendulum, start, times, method="dopri5", rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.value, theirs, rtol=0, atol=1e-8)


def test_a_single_item_has_no_batch_axis() -> None:
    result = integrate(lambda t, y: -y * t, double(1.0, 2.0), [0.0, 1.0])
    assert result.value.shape == (2, 2)
    assert result.status.shape == ()
    torch.testing.assert_close(
        result.value[-1], double(1.0, 2.0) * math.exp(-0.5), rtol=1e-5, atol=0
    )


def test_types_are_kept_and_integers_become_float64() -> None:
    for start, dtype in (
        (torch.ones(1, 1), torch.float32),
        (torch.ones(1, 1).int(), torch.float64),
    ):
        value = integrate(lambda t, y: -y, start, [0, 1], rtol=1e-4).value
        assert value.dtype == dtype


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"times": [0.0]}, ShapeError, "at least two times"),
        ({"times": [0.0, 2.0, 1.0]}, SettingsError, "only rise or only fall"),
        ({"times": torch.zeros(3, 5)}, ShapeError, r"\(T, 2\)"),
        ({"y0": torch.tensor(1.0)}, ShapeError, "y0: got"),
        ({"function": lambda t, y: y[:, :1]}, ShapeError, "trailing axes"),
        (
            {"function": lambda t, y: t * y[:, 0], "y0": torch.ones(3, 2)},
            ShapeError,
            "trailing axes",
        ),
        ({"rtol": 0.0}, SettingsError, "rtol"),
        ({"method": "dopri6"}, SettingsError, "did you mean 'dopri5'"),
        ({"max_steps": 0}, SettingsError, "max_steps"),
        ({"max_steps": 2.5}, SettingsError, "max_steps"),
        ({"events": lambda t, y: y}, ShapeError, "one number per item"),
        ({"events": lambda t, y: y[:, 0] > 0.5}, SettingsError, "number 0 gave torch.bool"),
        ({"function": lambda t, y: -y.float()}, SettingsError, "gave torch.float32 for"),
        ({"y0": torch.ones(2, 2).cfloat()}, SettingsError, "y0: got torch.complex64.*view_as_real"),
    ],
)
def test_bad_input_says_what_is_wrong(
    changes: dict[str, object], error: type[Exception], words: str
) -> None:
    arguments: dict[str, object] = {
        "function": pendulum,
        "y0": torch.ones(2, 2, dtype=torch.float64),
        "times": [0.0, 1.0],
    }
    with pytest.raises(error, match=words):
        integrate(**(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [3, None, "a"])
def test_a_right_hand_side_is_a_function(function: Any) -> None:
    for solve in (integrate, integrate_steps, compare_gradients):
        with pytest.raises(SettingsError, match="function: got .*as lambda t, y: -y"):
            solve(function, double(1.0)[None], [0.0, 1.0])


@pytest.mark.parametrize("events", [None, 3, [None]])
def test_events_are_functions(events: Any) -> None:
    with pytest.raises(SettingsError, match="events: got"):
        integrate(pendulum, double(0.1, 0.0), [0.0, 1.0], events=events)


@pytest.mark.parametrize("times", [None, "noon"])
def test_times_are_numbers(times: Any) -> None:
    with pytest.raises(SettingsError, match="times: got"):
        integrate(pendulum, double(0.1, 0.0), times)


def test_inside_vmap_is_refused() -> None:
    with pytest.raises(SettingsError, match="y0: .* inside vmap"):
        torch.vmap(lambda y: integrate(pendulum, y, [0.0, 1.0]).value)(torch.ones(3, 2).double())
    start = torch.ones(2, 1).double()
    for solve, words in ((integrate, "inside vmap"), (integrate_steps, "of vmap")):
        with pytest.raises(SettingsError, match=f"function: .* {words}"):
            torch.vmap(lambda k, f=solve: f(lambda t, y: -k * y, start, [0.0, 1.0]).value)(
                double(1.0, 2.0)
            )


def test_forward_mode_is_refused_instead_of_a_tangent_of_zero() -> None:
    one = double(1.0)
    with pytest.raises(SettingsError, match="y0: .*forward mode.*reverse mode"):
        torch.func.jvp(lambda y: integrate(lambda t, y: -y, y, [0.0, 1.0]).value, (one,), (one,))
    with pytest.raises(SettingsError, match="function: .*forward mode"):
        torch.func.jvp(
            lambda k: integrate(lambda t, y: -k * y, one, [0.0, 1.0]).value, (one,), (one,)
        )


def test_times_that_want_a_gradient_are_refused() -> None:
    with pytest.raises(SettingsError, match="times: want a gradient.*T \\* f"):
        integrate(pendulum, double(0.1, 0.0)[None], double(0.0, 1.0).requires_grad_())


def test_a_function_that_changes_its_states_is_refused_and_the_start_stays() -> None:
    start = double(1.0, 2.0)[None]
    with pytest.raises(SettingsError, match="function: changed the states"):
        integrate(lambda t, y: y.neg_(), start, [0.0, 1.0])
    assert start.tolist() == [[1.0, 2.0]]
    lost = double(math.nan, 1.0)[:, None]
    result = integrate(lambda t, y: -y, lost, [0.0, 1.0], on_failure="mask")
    assert int(result.status[1]) == Status.CONVERGED


def test_an_empty_batch_stays_empty() -> None:
    empty = torch.ones(0, 2, dtype=torch.float64, requires_grad=True)
    result = integrate(pendulum, empty, [0.0, 0.5, 1.0], events=lambda t, y: y[:, 0])
    assert result.value.shape == (3, 0, 2)
    assert result.status.shape == result.event_time.shape == (0,)
    result.value.sum().backward()
    assert empty.grad is not None


def test_auto_arrives_where_a_dead_mode_holds_explicit_steps_up_below_their_bound() -> None:
    def settles(t: Tensor, y: Tensor) -> Tensor:
        return -100 * (y - torch.cos(t)) - torch.sin(t)

    settings: dict[str, Any] = {"max_steps": 300, "on_failure": "mask"}
    start, times = double(1.0)[None], [0.0, 20.0]
    explicit = integrate(settles, start, times, method="dopri5", **settings)
    assert int(explicit.status) == Status.MAX_ITERATIONS
    auto = integrate(settles, start, times, **settings)
    assert int(auto.status) == Status.CONVERGED
    assert abs(float(auto.value[-1]) - math.cos(20.0)) < 1e-6


def robertson(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    slow, fast, back = 0.04 * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack([back - slow, slow - back - fast, fast], -1)


def hires(t: Tensor, y: Tensor) -> Tensor:
    a, b, c, d, e, f, g, h = y.unbind(-1)
    pair = 280 * f * h
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -pair + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            pair - 1.81 * g,
            -pair + 1.81 * g,
        ],
        -1,
    )


@pytest.mark.parametrize(
    ("rate", "start", "end"),
    [(robertson, [1.0, 0, 0], 1e3), (hires, [1.0, 0, 0, 0, 0, 0, 0, 0.0057], 50.0)],
    ids=["robertson", "hires"],
)
def test_a_stiff_step_takes_about_the_evaluations_of_scipy(
    rate: Any, start: list[float], end: float
) -> None:
    def columns(t: float, y: Any) -> Any:
        return rate(double(t), torch.from_numpy(y)[None])[0].numpy()

    wanted = solve_ivp(columns, (0, end), start, method="Radau", rtol=1e-4, atol=1e-7)
    found = integrate(rate, double(*start)[None], [0.0, end], method="radau5", rtol=1e-4, atol=1e-7)
    taken = float(found.iterations[0] + found.report.counts["rejected"][0])
    each = float(found.report.counts["evaluations"][0]) / taken
    # One more than SciPy for the Jacobian, which SciPy does not count.
    assert each < wanted.nfev / (len(wanted.t) - 1) + 2
    np.testing.assert_allclose(found.value[-1, 0].numpy(), wanted.y[:, -1], rtol=1e-4, atol=1e-7)


def test_an_extrapolation_out_of_the_domain_of_a_rate_does_not_end_an_item() -> None:
    def rate(t: Tensor, y: Tensor) -> Tensor:
        return -1e3 * y * torch.log(y / (1e-8 + torch.sin(3 * t) ** 2))

    found = integrate(rate, double(0.5)[:, None], [0.0, 1.2], method="radau5")
    wanted = solve_ivp(
        lambda t, z: -1e3 * (z - np.log(1e-8 + np.sin(3 * t) ** 2)), (0, 1.2), [math.log(0.5)],
        method="Radau", rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    assert float(found.value[-1, 0]) == pytest.approx(math.exp(wanted.y[0, -1]), rel=1e-5)
