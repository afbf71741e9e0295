"""diffGrad: its recursion, the aliasing trap, where it ends, and the contract of torch.optim."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solvers.core import SettingsError
from solvers.optim import DiffGrad


def rosenbrock(x: Tensor) -> Tensor:
    return ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def start() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, generator=g, dtype=torch.float64).requires_grad_()


def trajectory(
    make: Callable[[list[Tensor]], Any],
    *,
    steps: int = 200,
    set_to_none: bool = True,
) -> Tensor:
    x = start()
    optimizer = make([x])
    points = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=set_to_none)
        rosenbrock(x).backward()
        optimizer.step()
        points.append(x.detach().clone())
    return torch.stack(points)


def test_follows_the_recursion_written_in_numpy() -> None:
    ours = trajectory(lambda p: DiffGrad(p, lr=1e-2)).numpy()
    x = start().detach().numpy().copy()
    m, v, previous = np.zeros(6), np.zeros(6), np.zeros(6)
    for t in range(1, 201):
        g = np.zeros(6)
        g[:-1] += -2 * (1 - x[:-1]) - 400 * x[:-1] * (x[1:] - x[:-1] ** 2)
        g[1:] += 200 * (x[1:] - x[:-1] ** 2)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        xi = 1 / (1 + np.exp(-np.abs(previous - g)))
        previous = g
        x = x - 1e-2 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * xi * m / (np.sqrt(v) + 1e-8)
        assert np.abs(ours[t - 1] - x).max() < 1e-12


class Aliased(DiffGrad):
    """The trap: the previous gradient is the tensor that the next backward pass fills again."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self._prepare(p, group)
                kept = self.state[p]["alias"] if "alias" in self.state[p] else None
                if kept is not None:
                    self.state[p]["previous_grad"].copy_(kept)
                self._update([p], group)
                self.state[p]["alias"] = p.grad


def test_aliased_previous_gradient_is_adam_at_half_the_rate() -> None:
    aliased = trajectory(lambda p: Aliased(p, lr=1e-2), set_to_none=False)
    x = start()
    adam = torch.optim.Adam([x], lr=0.5e-2)
    points = []
    for k in range(200):
        adam.zero_grad()
        rosenbrock(x).backward()
        old, friction = x.detach().clone(), torch.sigmoid(x.grad.abs())  # type: ignore[union-attr]
        adam.step()
        if k == 0:
            with torch.no_grad():
                x.copy_(old + (x - old) * friction / 0.5)
        points.append(x.detach().clone())
    assert float((aliased - torch.stack(points)).abs().max()) < 1e-9
    ours = trajectory(lambda p: DiffGrad(p, lr=1e-2), set_to_none=False)
    assert float((ours - aliased).abs().max()) > 1e-3


def test_clearing_gradients_in_place_or_not_is_the_same() -> None:
    first = trajectory(lambda p: DiffGrad(p, lr=1e-2), set_to_none=False)
    second = trajectory(lambda p: DiffGrad(p, lr=1e-2), set_to_none=True)
    assert torch.equal(first, second)


def two_basins(x: Tensor) -> Tensor:
    return torch.where(x <= 0, (x + 0.3) ** 2, (x - 0.2) ** 2 + 0.05)


def ripples(x: Tensor) -> Tensor:
    return torch.where(x <= -0.9, -40 * x - 35.15, x**3 + x * torch.sin(8 * x) + 0.85)


def end_of(make: Callable[..., Any], function: Callable[[Tensor], Tensor]) -> float:
    x = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    optimizer = make([x], lr=0.1, betas=(0.95, 0.999))
    for _ in range(300):
        optimizer.zero_grad()
        function(x).backward()
        optimizer.step()
    return float(x.detach())


def test_ends_in_the_first_basin_where_adam_overshoots() -> None:
    assert end_of(DiffGrad, two_basins) == pytest.approx(-0.3, abs=1e-3)
    assert end_of(torch.optim.Adam, two_basins) == pytest.approx(0.2, abs=1e-3)
    assert float(ripples(torch.tensor(end_of(DiffGrad, ripples)))) < 1e-3
    assert float(ripples(torch.tensor(end_of(torch.optim.Adam, ripples)))) > 0.5


def test_relative_friction_ignores_the_scale_of_the_loss() -> None:
    def end(scale: float, *, relative: bool) -> Tensor:
        x = start()
        optimizer = DiffGrad([x], lr=1e-2, eps=0.0, relative=relative)
        for _ in range(50):
            optimizer.zero_grad()
            (scale * rosenbrock(x)).backward()
            optimizer.step()
        return x.detach()

    assert torch.allclose(end(1.0, relative=True), end(1e-6, relative=True), rtol=1e-9)
    assert not torch.allclose(end(1.0, relative=False), end(1e-6, relative=False), rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"amsgrad": True}, {"weight_decay": 0.1}, {"relative": True},
     {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"maximize": True}],
)  # fmt: skip
def test_foreach_equals_one_by_one(options: dict[str, Any]) -> None:
    results = []
    for foreach in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        x = torch.randn(7, 3, dtype=torch.float64)
        optimizer = DiffGrad(net.parameters(), lr=1e-2, foreach=foreach, **options)
        for _ in range(20):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(results[0], results[1])


def test_maximize_descends_the_negative() -> None:
    up, down = start(), start()
    for x, sign in ((up, -1.0), (down, 1.0)):
        optimizer = DiffGrad([x], lr=1e-2, maximize=sign < 0)
        for _ in range(20):
            optimizer.zero_grad()
            (sign * rosenbrock(x)).backward()
            optimizer.step()
    assert torch.equal(up, down)


def test_decay_without_gradient_is_exponential() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = DiffGrad([x], lr=0.1, weight_decay=0.5, decoupled_weight_decay=True)
    for _ in range(10):
        x.grad = torch.zeros_like(x)
        optimizer.step()
    assert torch.allclose(x.detach(), torch.full((2,), 0.95**10, dtype=torch.float64))


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    real = torch.randn(4, 2, dtype=torch.float64)
    z = torch.view_as_complex(real.clone()).requires_grad_()
    pair = real.clone().requires_grad_()
    for x in (z, pair):
        optimizer = DiffGrad([x], lr=0.05)
        for _ in range(10):
            optimizer.zero_grad()
            (x.abs().square() if torch.is_complex(x) else x.square()).sum().backward()
            optimizer.step()
    assert torch.allclose(torch.view_as_real(z.detach()), pair.detach(), atol=1e-12)


def test_float16_parameters_step_under_a_gradient_scaler() -> None:
    x = torch.ones(3, requires_grad=True)
    optimizer = DiffGrad([x], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(x.square().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    y = torch.ones(3, requires_grad=True)
    plain = DiffGrad([y], lr=0.1)
    y.square().sum().backward()
    plain.step()
    assert torch.equal(x.detach(), y.detach())


def test_agrees_with_a_packaged_diffgrad() -> None:
    peer = pytest.importorskip("pytorch_optimizer")
    ours = trajectory(lambda p: DiffGrad(p, lr=1e-2))
    theirs = trajectory(lambda p: peer.DiffGrad(p, lr=1e-2))
    assert float((ours - theirs).abs().max()) < 1e-12


def test_bad_settings() -> None:
    with pytest.raises(SettingsError, match="lr"):
        DiffGrad([start()], lr=-1.0)
    with pytest.raises(SettingsError, match="betas"):
        DiffGrad([start()], betas=(1.0, 0.9))
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(SettingsError, match="sparse"):
        DiffGrad(table.parameters()).step()


def test_copies_survive_deepcopy() -> None:
    x = start()
    optimizer = DiffGrad([x], lr=1e-2)
    rosenbrock(x).backward()
    optimizer.step()
    assert copy.deepcopy(optimizer.state_dict())["state"][0]["step"] == 1
