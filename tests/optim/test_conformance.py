"""What every optimizer of the room owes to torch.optim: state, groups, closures, repeatability."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from solvers.core import NonFiniteError, SettingsError
from solvers.optim import GNS, SGLD, DiffGrad, NaturalGradient, SphericalLangevin


def net(*, on_sphere: bool = False) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    if on_sphere:
        with torch.no_grad():
            for p in module.parameters():
                p.div_(torch.linalg.vector_norm(p, dim=-1, keepdim=True))
    return module


X = torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3)
Y = torch.sin(X[:, :2])


def backward_closure(module: nn.Module, optimizer: Optimizer) -> Callable[[], Any]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (module(X) - Y).square().sum()
        loss.backward()
        return loss.detach()

    return closure


def residual_closure(module: nn.Module, optimizer: Optimizer) -> Callable[[], Any]:
    return lambda: (module(X) - Y).reshape(-1)


def output_closure(module: nn.Module, optimizer: Optimizer) -> Callable[[], Any]:
    def closure() -> tuple[Tensor, Tensor]:
        outputs = module(X)
        return outputs, 0.5 * (outputs - Y).square().mean()

    return closure


Make = Callable[[Any], Optimizer]
CASES: dict[str, tuple[Make, Any, bool]] = {
    "diffgrad": (lambda p: DiffGrad(p, lr=1e-2, amsgrad=True), backward_closure, False),
    "relative": (lambda p: DiffGrad(p, lr=1e-2, relative=True), backward_closure, False),
    "sgld": (lambda p: SGLD(p, lr=1e-3, temperature=0.1), backward_closure, False),
    "sphere": (lambda p: SphericalLangevin(p, lr=1e-2, beta=0.1), backward_closure, True),
    "gns": (GNS, residual_closure, False),
    "nielsen": (lambda p: GNS(p, damping="nielsen"), residual_closure, False),
    "natural": (lambda p: NaturalGradient(p, family="gaussian", lr=0.3), output_closure, False),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
WITH_GROUPS = pytest.mark.parametrize(
    "case", [CASES[name] for name in ("diffgrad", "sgld")], ids=["diffgrad", "sgld"]
)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def run(case: Any, steps: int, module: nn.Module, optimizer: Optimizer) -> None:
    closure = case[1](module, optimizer)
    for _ in range(steps):
        optimizer.step(closure)


@ALL
def test_a_resumed_run_is_the_same_run(case: Any) -> None:
    module = net(on_sphere=case[2])
    optimizer = case[0](module.parameters())
    run(case, 4, module, optimizer)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), module.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    run(case, 4, module, optimizer)

    resumed = net(on_sphere=case[2])
    resumed.load_state_dict(states[1])
    second = case[0](resumed.parameters())
    second.load_state_dict(copy.deepcopy(states[0]))
    run(case, 4, resumed, second)
    assert torch.equal(flat(resumed), flat(module))


@ALL
def test_same_start_same_run(case: Any) -> None:
    ends = []
    for _ in range(2):
        module = net(on_sphere=case[2])
        run(case, 3, module, case[0](module.parameters()))
        ends.append(flat(module))
    assert torch.equal(ends[0], ends[1])


@ALL
def test_closure_gives_the_loss_back(case: Any) -> None:
    module = net(on_sphere=case[2])
    optimizer = case[0](module.parameters())
    loss = optimizer.step(case[1](module, optimizer))
    assert float(loss) > 0


@ALL
def test_learning_lowers_the_loss(case: Any) -> None:
    module = net(on_sphere=case[2])
    optimizer = case[0](module.parameters())
    first = float((module(X) - Y).detach().square().sum())
    run(case, 60, module, optimizer)
    if not isinstance(optimizer, SphericalLangevin):
        assert float((module(X) - Y).detach().square().sum()) < first
    else:
        lengths = torch.linalg.vector_norm(next(module.parameters()).detach(), dim=-1)
        assert torch.allclose(lengths, torch.ones_like(lengths))


@WITH_GROUPS
def test_groups_have_their_own_rate(case: Any) -> None:
    module = net()
    first, second = module[0], module[2]  # type: ignore[index]
    optimizer = case[0]([
        {"params": first.parameters(), "lr": 0.0 if case is CASES["diffgrad"] else 1e-12},
        {"params": second.parameters()},
    ])  # fmt: skip
    before = flat(first), flat(second)
    run(case, 2, module, optimizer)
    assert float((flat(first) - before[0]).abs().max()) < 1e-5
    assert float((flat(second) - before[1]).abs().max()) > 1e-3


@WITH_GROUPS
def test_parameters_without_gradients_stay(case: Any) -> None:
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = case[0]([used, unused])
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused.detach(), torch.ones(2))
    assert not torch.equal(used.detach(), torch.ones(2))


@pytest.mark.parametrize("name", ["gns", "natural"])
def test_parameters_without_influence_stay(name: str) -> None:
    case = CASES[name]
    module = net()
    idle = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = case[0]([*module.parameters(), idle])
    run(case, 2, module, optimizer)
    assert torch.equal(idle.detach(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["diffgrad", "sgld"])
def test_schedulers_drive_the_rate(name: str) -> None:
    module = net()
    optimizer = CASES[name][0](module.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    run(CASES[name], 1, module, optimizer)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] in (5e-3, 5e-4)


@ALL
def test_a_loss_that_is_not_finite_moves_nothing(case: Any) -> None:
    module = net(on_sphere=case[2])
    optimizer = case[0](module.parameters())
    run(case, 2, module, optimizer)
    before, state = flat(module), copy.deepcopy(optimizer.state_dict()["state"])
    whole = case[1](module, optimizer)

    def broken() -> Any:
        found = whole()
        return (found[0], found[1] * math.nan) if isinstance(found, tuple) else found * math.nan

    with pytest.raises(NonFiniteError, match="loss"):
        optimizer.step(broken)
    assert torch.equal(flat(module), before)
    after = optimizer.state_dict()["state"]
    torch.testing.assert_close(after, state, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", ["gns", "natural"])
def test_parameters_that_take_no_gradients_are_named(name: str) -> None:
    case = CASES[name]
    module = net().requires_grad_(False)
    with pytest.raises(SettingsError, match="not depend on the parameters"):
        run(case, 1, module, case[0](module.parameters()))
    module[0].requires_grad_(True)  # type: ignore[index]
    with pytest.raises(SettingsError, match="number 2 .*takes no gradients"):
        run(case, 1, module, case[0](module.parameters()))


@ALL
def test_a_step_may_be_taken_where_no_gradients_are_recorded(case: Any) -> None:
    outside, inside = net(on_sphere=case[2]), net(on_sphere=case[2])
    run(case, 2, outside, case[0](outside.parameters()))
    with torch.no_grad():
        run(case, 2, inside, case[0](inside.parameters()))
    assert torch.equal(flat(inside), flat(outside))


@pytest.mark.parametrize("name", ["sgld", "sphere", "gns", "natural"])
def test_complex_parameters_are_refused(name: str) -> None:
    z = torch.tensor([0.6 + 0.8j], dtype=torch.complex128, requires_grad=True)
    with pytest.raises(SettingsError, match="params: one is torch.complex128.*view_as_real"):
        CASES[name][0]([z])


@WITH_GROUPS
def test_sparse_gradients_are_refused(case: Any) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(SettingsError, match="sparse"):
        case[0](table.parameters()).step()


@WITH_GROUPS
def test_a_rate_may_be_a_tensor(case: Any) -> None:
    numbers, tensors = net(), net()
    first, second = case[0](numbers.parameters()), case[0](tensors.parameters())
    second.param_groups[0]["lr"] = torch.tensor(second.param_groups[0]["lr"], dtype=torch.float64)
    run(case, 2, numbers, first)
    run(case, 2, tensors, second)
    assert torch.equal(flat(numbers), flat(tensors))


@pytest.mark.parametrize("name", ["gns", "nielsen"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_closure_that_raises_in_a_trial_moves_nothing(
    name: str, error: type[BaseException]
) -> None:
    module = net()
    optimizer = CASES[name][0](module.parameters())
    before, whole, calls = flat(module), residual_closure(module, optimizer), []

    def broken() -> Any:
        calls.append(0)
        if len(calls) > 1:
            raise error
        return whole()

    with pytest.raises(error):
        optimizer.step(broken)
    assert torch.equal(flat(module), before)
