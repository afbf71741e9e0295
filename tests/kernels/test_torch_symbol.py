"""Programs written for tensors, traced: the same numbers, and refusals where there are none."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

from solvers.kernels import TorchTape, evaluate, reverse, scalar

Program = Callable[[Any, Any], Any]

PROGRAMS: list[Program] = [
    lambda x, y: torch.sin(x) * y.cos() - torch.tan(x * y) / torch.exp(y).log(),
    lambda x, y: torch.sqrt(x * x + 1.0) + x.pow(3) - torch.pow(y, -0.7) + y**0.25 + 2.0**x,
    lambda x, y: torch.where(x > y, x, torch.tanh(y)) + torch.where(x.le(y), 1.0, y),
    lambda x, y: torch.maximum(x, y) - torch.minimum(x, y).abs() + torch.clamp(x, 0.1, max=0.5),
    lambda x, y: torch.add(x, 2.0) * torch.sub(1.0, y) / torch.div(x, y) - torch.neg(x).square(),
    lambda x, y: torch.rsqrt(y) + torch.ones_like(x) * x.reciprocal() - torch.zeros_like(y),
    lambda x, y: scalar.sqrt(x) * torch.sin(scalar.power(y, 1.3)),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_numbers_and_slopes_are_those_of_tensors(program: Program) -> None:
    tape = TorchTape()
    symbols = tape.inputs("x", 2)
    traced = program(*symbols)
    x = torch.tensor([0.7, 1.9], dtype=torch.float64, requires_grad=True)
    value = program(*x)
    (slope,) = torch.autograd.grad(value, x)
    mine = evaluate([traced, *reverse([(traced, 1.0)], symbols)], {"x": x.tolist()})
    assert mine == pytest.approx([value.item(), *slope.tolist()], rel=1e-14)


@pytest.mark.parametrize(
    "program",
    [
        torch.sinh,
        lambda x: torch.tensor(2.0) * x,
        lambda x: x + torch.tensor(2.0),
        lambda x: torch.where(x == 0.0, 1.0, x),
        lambda x: 1.0 * (x != 0.0),
        lambda x: torch.add(x, 1.0, alpha=2),
        lambda x: x.sum(),
        lambda x: x * x.shape[0],
        lambda x: x if x > 0 else -x,
        lambda x: torch.stack([x, x]),
        operator.itemgetter(0),
    ],
)
def test_what_has_no_counterpart_is_refused(program: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        program(TorchTape().input("x"))
