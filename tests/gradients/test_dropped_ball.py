r"""A ball that falls, lands without a bounce and slides on: all derivatives in closed form.

With a step h the fall is ``v_k = v_0 - k g h`` and ``z_k = z_0 + h (v_1 + ... + v_k)`` exactly.
Hard contact leaves it at the height of its radius whatever happened before. While it slides, the
friction impulse is mu times the normal impulse, which is all the momentum that came down.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import physim

H, G, RADIUS, MASS, MU = 0.01, 9.81, 0.1, 2.0, 0.5
Build = Callable[..., physim.Simulator]
NAMES = ("mass", "gravity", "friction", "shape_size", "timestep")


@pytest.fixture(scope="module")
def sim(simulator: Build) -> physim.Simulator:
    return simulator("puck", smoothing=1e-9, gradient_smoothing=1e-9)


def drop(
    sim: physim.Simulator, z: float, v: tuple[float, float, float], steps: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Final q and v of a drop, and the leaves that they depend on."""
    given = {name: sim.parameters()[name].clone().requires_grad_() for name in NAMES}
    q0 = torch.tensor([[0.0, 0.0, z]], dtype=torch.float64, requires_grad=True)
    v0 = torch.tensor([v], dtype=torch.float64, requires_grad=True)
    past = torch.full((1,), H, dtype=torch.float64)
    now = physim.State(q=q0, v=v0, interval=past)
    last = sim.rollout(now, steps=steps, parameters=given).state(-1)
    return last.q[0], last.v[0], {"q": q0, "v": v0, **given}


def slopes(output: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    grads = torch.autograd.grad(output, list(leaves.values()), retain_graph=True)
    return dict(zip(leaves, grads, strict=True))


def test_fall(sim: physim.Simulator) -> None:
    n = 12
    q, v, leaves = drop(sim, 3.0, (0.4, 0.0, -0.3), n)
    assert q[2].item() == pytest.approx(3.0 + n * H * -0.3 - G * H * H * n * (n + 1) / 2, abs=1e-9)
    height, speed = slopes(q[2], leaves), slopes(v[2], leaves)
    near = {"abs": 1e-8}
    assert float(height["q"][0, 2]) == pytest.approx(1.0, **near)
    assert float(height["v"][0, 2]) == pytest.approx(n * H, **near)
    # gravity is the vector (0, 0, -g).
    assert float(height["gravity"][2]) == pytest.approx(H * H * n * (n + 1) / 2, **near)
    assert float(speed["gravity"][2]) == pytest.approx(n * H, **near)
    assert float(height["mass"]) == pytest.approx(0.0, **near)
    # The first kick is the mean of past and coming interval: v_k = v_0 - g (h / 2 + (k - 1/2) h).
    by_h = n * -0.3 - G * sum(0.5 * H + 2 * (k - 0.5) * H for k in range(1, n + 1))
    assert float(height["timestep"]) == pytest.approx(by_h, abs=1e-7)


def test_landing_forgets_the_drop(sim: physim.Simulator) -> None:
    """The final height is the radius, whatever the drop height, speed, mass and gravity."""
    q, v, leaves = drop(sim, 0.153, (0.0, 0.0, -0.5), 20)
    assert q[2].item() == pytest.approx(RADIUS, abs=1e-8)
    height = slopes(q[2], leaves)
    assert float(height["shape_size"][1, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(height["q"][0, 2]) == pytest.approx(0.0, abs=1e-6)
    for name in ("v", "mass", "gravity", "friction"):
        assert float(height[name].abs().max()) < 1e-6
    assert v[2].item() == pytest.approx(0.0, abs=1e-6)


def test_step_of_the_landing(sim: physim.Simulator) -> None:
    """The ball arrives exactly: v+ = (r - z) / h, so dv+/dz = -1/h and dv+/dv = 0."""
    q, v, leaves = drop(sim, RADIUS + 0.004, (0.0, 0.0, -1.0), 1)
    assert v[2].item() == pytest.approx(-0.004 / H, abs=1e-6)
    speed = slopes(v[2], leaves)
    assert float(speed["q"][0, 2]) == pytest.approx(-1 / H, rel=1e-6)
    assert float(speed["shape_size"][1, 0]) == pytest.approx(1 / H, rel=1e-6)
    assert float(speed["v"][0, 2]) == pytest.approx(0.0, abs=1e-6)
    assert float(speed["timestep"]) == pytest.approx(0.004 / H**2, rel=1e-6)
    assert float(slopes(q[2], leaves)["q"][0, 2]) == pytest.approx(0.0, abs=1e-6)


def test_sliding_after_the_landing(sim: physim.Simulator) -> None:
    """All momentum that came down returns mu times as friction."""
    n, down = 12, -0.5
    _, v, leaves = drop(sim, 0.11, (3.0, 0.0, down), n)
    fallen = n * G * H - down
    assert v[0].item() == pytest.approx(3.0 - MU * fallen, abs=1e-6)
    speed = slopes(v[0], leaves)
    assert float(speed["v"][0, 0]) == pytest.approx(1.0, abs=1e-5)
    assert float(speed["v"][0, 2]) == pytest.approx(MU, abs=1e-5)
    assert float(speed["q"][0, 2]) == pytest.approx(0.0, abs=1e-4)
    assert float(speed["gravity"][2]) == pytest.approx(MU * n * H, abs=1e-5)
    assert float(speed["mass"]) == pytest.approx(0.0, abs=1e-5)
    # The rougher of the two surfaces counts; both are named in the file, the floor with mu.
    assert float(speed["friction"].sum()) == pytest.approx(-fallen, abs=1e-4)


def test_sticking_forgets_the_speed(sim: physim.Simulator) -> None:
    """A ball that friction has stopped has no speed left to remember."""
    _, v, leaves = drop(sim, RADIUS, (0.2, 0.1, 0.0), 15)
    assert v[:2].abs().max().item() < 1e-5
    speed = slopes(v[0], leaves)
    assert float(speed["v"].abs().max()) < 1e-4
    assert float(speed["friction"].abs().max()) < 1e-4


@pytest.mark.parametrize("smoothing", [1e-2, 1e-4, 1e-6, 1e-8])
def test_smoothing_curve_of_resting_contact(
    simulator: Build, tight: object, smoothing: float
) -> None:
    r"""A lifted resting ball: dv/df goes from 0 to h/m, and is h/(2m) where the force is weight.

    From rest at gap zero, ``m v = h (f - m g) + kappa / v``.
    """
    sim = simulator("puck", smoothing=smoothing, gradient_smoothing=smoothing, settings=tight)
    lift = MASS * G + torch.linspace(-15.0, 15.0, 31, dtype=torch.float64)
    force = torch.stack([0 * lift, lift], dim=-1).requires_grad_()
    state = sim.initial_state(batch=31, q=[0.0, 0.0, RADIUS])
    following, _ = sim.step(state, force)
    (gradient,) = torch.autograd.grad(following.v[:, 2].sum(), force)
    slope, v = gradient[:, 1], following.v[:, 2].detach()
    assert float(slope[15]) == pytest.approx(H / (2 * MASS), rel=1e-6)
    assert bool((slope[1:] >= slope[:-1] * (1 - 1e-9)).all())
    assert float(slope.min()) > 0.0
    assert float(slope.max()) <= H / MASS
    # The same curve from its own closed form: v = w/2 + sqrt(w^2/4 + v_0^2).
    w = H * (lift - MASS * G) / MASS
    v0 = float(v[15])
    torch.testing.assert_close(v, w / 2 + (w**2 / 4 + v0**2).sqrt(), rtol=1e-6, atol=1e-12)


def test_gradient_smoothing_sees_through_resting_contact(simulator: Build) -> None:
    """Below its weight a force does not lift a ball, but the soft gradient says that it helps."""
    lift = torch.tensor([[0.0, 0.9 * MASS * G]], dtype=torch.float64)
    found = []
    for smoothing in (1e-6, 1e-4, 1e-2):
        sim = simulator("puck", smoothing=1e-8, gradient_smoothing=smoothing)
        force = lift.clone().requires_grad_()
        following, _ = sim.step(sim.initial_state(q=[0.0, 0.0, RADIUS]), force)
        assert following.v[0, 2].item() < 1e-5
        found.append(float(torch.autograd.grad(following.v[0, 2], force)[0][0, 1]))
    assert 0.0 < found[0] < 0.1 * found[1] < found[1] < found[2]
    assert found[2] > 0.1 * H / MASS
