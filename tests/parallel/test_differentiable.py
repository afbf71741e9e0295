"""Gradients across workers are those of the loop, to the bit."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from solvers.core import SettingsError
from solvers.parallel import (
    Executor,
    RayExecutor,
    SerialExecutor,
    TaskError,
    ThreadExecutor,
    differentiable_map,
)

WEIGHT = torch.ones(2, requires_grad=True)


def energy(item: dict[str, Tensor], parameters: list[Tensor]) -> tuple[Tensor, dict[str, object]]:
    weight, bias = parameters
    hidden = torch.tanh(weight @ item["x"] + bias)
    return hidden.square().sum() * item["scale"], {"hidden": hidden, "count": hidden.numel()}


def problem(count: int = 5) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        return tensor.requires_grad_()

    parameters = [draw(4, 3), draw(4)]
    items = [{"x": draw(3), "scale": draw()} for _ in range(count)]
    return parameters, items


def gradients(executor: Executor | None, count: int = 5) -> list[Tensor]:
    parameters, items = problem(count)
    outputs = differentiable_map(energy, items, parameters=parameters, executor=executor)
    loss = sum((k + 1) * y + y * extra["hidden"].sum() for k, (y, extra) in enumerate(outputs))
    loss.backward()
    leaves = [*parameters, *(tensor for item in items for tensor in item.values())]
    return [loss.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]


def loop() -> list[Tensor]:
    parameters, items = problem()
    outputs = [energy(item, parameters) for item in items]
    loss = sum((k + 1) * y + y * extra["hidden"].sum() for k, (y, extra) in enumerate(outputs))
    loss.backward()
    leaves = [*parameters, *(tensor for item in items for tensor in item.values())]
    return [loss.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]


def test_the_loop_gives_the_same_gradients() -> None:
    for mine, theirs in zip(gradients(None), loop(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-14, atol=1e-14)


def test_every_executor_gives_the_same_bits(executor: Executor) -> None:
    for mine, theirs in zip(gradients(executor), gradients(None), strict=True):
        assert torch.equal(mine, theirs)


@given(count=st.integers(1, 7), workers=st.integers(1, 4))
def test_the_number_of_workers_changes_no_bit(count: int, workers: int) -> None:
    with SerialExecutor(workers) as executor:
        for mine, theirs in zip(gradients(executor, count), gradients(None, count), strict=True):
            assert torch.equal(mine, theirs)


def test_gradcheck() -> None:
    parameters, items = problem(3)
    with ThreadExecutor(2) as executor:

        def total(*tensors: Tensor) -> tuple[Tensor, ...]:
            outputs = differentiable_map(
                lambda x, p: (p[0] @ x).sin() * p[1],
                list(tensors[2:]),
                parameters=list(tensors[:2]),
                executor=executor,
            )
            return tuple(outputs)

        assert torch.autograd.gradcheck(total, (*parameters, *(item["x"] for item in items)))


def test_without_parameters_and_without_gradients(executor: Executor) -> None:
    xs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    ys = differentiable_map(torch.sin, [], executor=executor)
    assert ys == []
    ys = differentiable_map(lambda x: x.cumsum(0), xs, executor=executor)
    assert [y.tolist() for y in ys] == [[1.0, 3.0], [3.0, 7.0]]
    assert not ys[0].requires_grad
    assert differentiable_map(lambda k: k + 1, [1, 2, 3], executor=executor) == [2, 3, 4]


def test_what_is_no_number_passes_through(executor: Executor) -> None:
    x = torch.tensor([3.0, 1.0], requires_grad=True)
    value, order, note = differentiable_map(
        lambda x: (x * 2, x.argsort(), "sorted"), [x], executor=executor
    )[0]
    assert note == "sorted"
    assert order.tolist() == [1, 0]
    assert not order.requires_grad
    value.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_second_backward_and_an_unused_output(executor: Executor) -> None:
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y, _ = differentiable_map(lambda x: x**3, [x, x], executor=executor)
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    (second,) = torch.autograd.grad(y, x)
    assert float(first) == float(second) == 12.0


def test_second_derivatives_are_refused() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    (y,) = differentiable_map(lambda x: x**3, [x])
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(y, x, create_graph=True)


def test_shared_items_stay_where_they_are(executor: Executor) -> None:
    points = [executor.share(torch.full((4,), float(k))) for k in range(3)]
    scale = torch.tensor(2.0, requires_grad=True)
    for _ in range(2):
        ys = differentiable_map(
            lambda x, p: (p * x).sum(), points, parameters=scale, executor=executor
        )
    sum(ys).backward()
    assert float(scale.grad) == 12.0  # type: ignore[arg-type]


def test_the_failing_item_is_named(executor: Executor) -> None:
    def half(x: Tensor) -> Tensor:
        if float(x) < 0:
            raise ValueError("negative")
        return x.sqrt()

    with pytest.raises(
        TaskError, match="item 1 of 3: .*half raised ValueError: negative"
    ) as caught:
        differentiable_map(half, [torch.tensor(k) for k in (1.0, -1.0, -2.0)], executor=executor)
    assert caught.value.item == 1
    assert isinstance(caught.value.__cause__, ValueError)


class Onward(torch.autograd.Function):
    """Has no way back from negative numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2.0 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        if float(ctx.saved_tensors[0]) < 0:
            raise ValueError("no way back")
        return 2.0 * slope


def go_onward(x: Tensor) -> Tensor:
    y: Tensor = Onward.apply(x)  # type: ignore[no-untyped-call]
    return y


def test_the_item_that_fails_in_the_backward_pass_is_named(executor: Executor) -> None:
    x = torch.tensor([1.0, 2.0, -3.0], requires_grad=True)
    ys = differentiable_map(go_onward, list(x), executor=executor)
    with pytest.raises(TaskError, match="item 2 of 3: go_onward raised ValueError") as caught:
        torch.stack(ys).sum().backward()
    assert caught.value.item == 2


def test_a_backward_pass_after_the_end_of_the_workers_says_so() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    with ThreadExecutor(1) as executor:
        (y,) = differentiable_map(lambda v: v**2, [x], executor=executor)
    with pytest.raises(SettingsError, match=r"call backward\(\) before it is closed"):
        y.backward()


def test_gradients_that_would_be_lost_are_refused() -> None:
    weight = torch.ones(2, requires_grad=True)
    net = nn.Linear(2, 1)
    xs = [torch.ones(2)]
    for function in (
        lambda x: x @ weight,
        net,
        net.forward,
        functools.partial(torch.add, weight),
        lambda x: net(x) + 1,
        lambda x: x @ WEIGHT,
        lambda x: [y * WEIGHT for y in x],
    ):
        with pytest.raises(SettingsError, match="parameters="):
            differentiable_map(function, xs)
        with torch.no_grad():
            differentiable_map(function, xs)


def test_graphs_go_with_their_outputs() -> None:
    from solvers.parallel._differentiable import Tape

    with SerialExecutor() as executor:
        x = torch.ones(3, requires_grad=True)
        for _ in range(5):
            differentiable_map(lambda x: x.exp(), [x, x], executor=executor)
        (tape,) = (a for a in executor._hosts[0]._actors.values() if isinstance(a, Tape))
        assert len(tape._graphs) == 2
        y, _ = differentiable_map(lambda x: x.exp(), [x, x], executor=executor)
        y.sum().backward()
        assert len(tape._graphs) == 1


@pytest.mark.slow
def test_a_lost_graph_is_computed_again(ray_executor: RayExecutor) -> None:
    parameters, items = problem()
    outputs = differentiable_map(energy, items, parameters=parameters, executor=ray_executor)
    loss = sum((k + 1) * y + y * extra["hidden"].sum() for k, (y, extra) in enumerate(outputs))
    os.kill(ray_executor.processes[1], signal.SIGKILL)
    loss.backward()
    expected = gradients(None)
    leaves = [*parameters, *(tensor for item in items for tensor in item.values())]
    for leaf, right in zip(leaves, expected[1:], strict=True):
        assert torch.equal(leaf.grad, right)  # type: ignore[arg-type]
