"""The tape: sharing, folding, reverse mode against autograd, and clear refusals."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.kernels import Tape, evaluate, operation_count, reverse, scalar

from .conftest import make_program


def test_equal_work_is_recorded_once() -> None:
    tape = Tape()
    x, y = tape.inputs("x", 2)
    assert x * y is y * x
    assert x + y is y + x
    assert x - y is not y - x
    assert (x > y) is (y < x)
    assert scalar.maximum(x, y) is scalar.maximum(y, x)
    assert tape.input("x", 1) is y
    assert tape.inputs("x", 1, 1)[0] is y


def test_folding_leaves_no_trace() -> None:
    tape = Tape()
    x, y = tape.inputs("x", 2)
    before = len(tape)
    assert x + 0 is x
    assert 0 + x is x
    assert x * 1 is x
    assert x / 1.0 is x
    assert x - 0.0 is x
    assert len(tape) <= before + 2  # the constants 0 and 1 at most
    assert (x * 0).value == 0.0
    assert (x - x).value == 0.0
    assert (x / x).value == 1.0
    assert (tape.constant(2.0) * 3.0 + 1.0).value == 7.0
    opposite = -x
    assert -opposite is x
    assert x + (-y) is x - y
    assert x - (-y) is x + y
    assert (-x) * (-y) is x * y
    assert -(x - y) is y - x
    assert 2.0 * (3.0 * x) is 6.0 * x
    assert (x > y).where(x, x) is x
    assert ~~(x > y) is (x > y)
    assert abs(abs(x)) is abs(x)


def test_powers_multiply() -> None:
    x = Tape().input("x")
    values = evaluate([x**0, x**1, x**5, x**0.5, x**-2, x**2.5], {"x": [2.0]})
    np.testing.assert_allclose(values, [1, 2, 32, 2**0.5, 0.25, 2**2.5], rtol=1e-15)
    with pytest.raises(ValueError, match="1/2"):
        x**0.3


def test_operation_count_counts_live_work_only() -> None:
    tape = Tape()
    x, y = tape.inputs("x", 2)
    _dead = scalar.sin(x * y)
    counted = operation_count([x * y + 2.0, 5.0])
    assert counted == {"multiply": 1, "add": 1}
    assert counted.total() == 2
    assert not operation_count([1.0])


@given(st.integers(0, 10**6))
def test_interpreter_matches_the_program_on_tensors(seed: int) -> None:
    program = make_program(seed)
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(7, 3)))
    direct = program([x[:, i] for i in range(3)])
    traced = evaluate(program(Tape().inputs("x", 3)), {"x": x})
    for a, b in zip(direct, traced, strict=True):
        torch.testing.assert_close(
            torch.as_tensor(a, dtype=torch.float64).expand(7),
            torch.as_tensor(b, dtype=torch.float64).expand(7),
            rtol=1e-11,
            atol=1e-12,
        )


@given(st.integers(0, 10**6))
def test_reverse_matches_autograd(seed: int) -> None:
    program = make_program(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(5, 3))).requires_grad_()
    bars = rng.normal(size=4)
    total = sum(
        bar * torch.as_tensor(y, dtype=torch.float64).expand(5).sum()
        for bar, y in zip(bars, program([x[:, i] for i in range(3)]), strict=True)
    )
    expected = torch.zeros_like(x)
    if total.requires_grad:
        (expected,) = torch.autograd.grad(total, x)
    tape = Tape()
    inputs = tape.inputs("x", 3)
    seeds = list(zip(program(inputs), bars.tolist(), strict=True))
    gradient = evaluate(reverse(seeds, inputs), {"x": x.detach()})
    for i in range(3):
        torch.testing.assert_close(
            torch.as_tensor(gradient[i], dtype=torch.float64).expand(5),
            expected[:, i],
            rtol=1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize("seed", range(5))
def test_reverse_of_reverse_is_the_hessian(seed: int) -> None:
    program = make_program(seed, length=15, smooth=True)
    tape = Tape()
    inputs = tape.inputs("x", 3)
    energy = sum(program(inputs), start=tape.constant(0.0))
    gradient = reverse([(energy, 1.0)], inputs)
    hessian = [reverse([(g, 1.0)], inputs) for g in gradient]
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=3))
    expected = torch.autograd.functional.hessian(
        lambda z: sum(torch.as_tensor(y) for y in program(list(z))), x
    )
    values = [[float(v) for v in evaluate(row, {"x": x})] for row in hessian]
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-10)


def test_powers_have_the_derivatives_of_autograd() -> None:
    def program(x: Any, p: Any) -> list[Any]:
        return [
            scalar.power(x, p),
            scalar.power(2.0, p),
            scalar.power(x, 0.37),
            scalar.power(x, -2.5),
            scalar.log(x),
        ]

    points = torch.tensor([[0.3, 1.7], [2.0, -0.4], [1.0, 3.0]], dtype=torch.float64)
    points.requires_grad_()
    inputs = Tape().inputs("x", 2)
    traced = program(*inputs)
    for y, expected in zip(traced, program(*points.T), strict=True):
        gradient = evaluate(reverse([(y, 1.0)], inputs), {"x": points.detach()})
        (exact,) = torch.autograd.grad(expected.sum(), points, retain_graph=True)
        for one, other in zip(gradient, exact.T, strict=True):
            one = torch.as_tensor(one, dtype=torch.float64).expand(3)
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_reverse_by_intermediate_values_and_symbolic_seeds() -> None:
    tape = Tape()
    x, y = tape.inputs("x", 2)
    middle = x * y
    result = scalar.sin(middle) + middle * x
    weight = tape.input("w")
    by_middle, by_x, by_other = reverse(
        [(result, weight), (3.0, weight), (x, 2.0)], [middle, x, tape.input("other")]
    )
    assert by_other == 0.0
    point = {"x": [0.3, 0.7], "w": [1.7]}
    values = evaluate([by_middle, by_x], point)
    np.testing.assert_allclose(values, [1.7 * (np.cos(0.21) + 0.3), 1.7 * 0.21 + 2.0], rtol=1e-14)


def test_kinks_have_the_derivative_of_the_branch_taken() -> None:
    tape = Tape()
    (x,) = tape.inputs("x", 1)
    (gradient,) = reverse([(scalar.maximum(x, 0.0), 1.0)], [x])
    (slope,) = reverse([(scalar.absolute(x), 1.0)], [x])
    points = np.array([[-2.0], [0.0], [3.0]])
    assert evaluate([gradient], {"x": points})[0].tolist() == [0.0, 1.0, 1.0]
    assert evaluate([slope], {"x": points})[0].tolist() == [-1.0, 0.0, 1.0]


def test_long_tapes_need_no_recursion_and_linear_time() -> None:
    def seconds(length: int) -> float:
        tape = Tape()
        x, y = tape.inputs("x", 2)
        z = x
        for _ in range(length):
            z = z * y + x
        start = time.perf_counter()
        reverse([(z, 1.0)], [x, y])
        return time.perf_counter() - start

    short, long = min(seconds(2_000) for _ in range(3)), seconds(50_000)
    assert long < 25 * short * 8  # eightfold slack; quadratic time would be 25 times beyond linear


def test_misuse_is_named() -> None:
    tape, other = Tape(), Tape()
    x, y = tape.input("x"), other.input("y")
    with pytest.raises(ValueError, match="two tapes"):
        x + y
    with pytest.raises(TypeError, match="no truth value"):
        bool(x > 0.0)
    with pytest.raises(TypeError, match="Tensor"):
        x * torch.ones(2)
    with pytest.raises(TypeError):
        torch.ones(2) * x
    with pytest.raises(TypeError, match="condition"):
        (x > 0.0) + 1.0
    with pytest.raises(TypeError, match="condition"):
        x & (x > 0.0)
    with pytest.raises(TypeError, match="where needs a condition"):
        x.where(1.0, 2.0)
    with pytest.raises(TypeError, match="condition"):
        reverse([(x > 0.0, 1.0)], [x])
    with pytest.raises(ValueError, match="identifier"):
        tape.input("x y")
    with pytest.raises(ValueError, match="0 or more"):
        tape.input("x", -1)
    with pytest.raises(TypeError, match="not a constant"):
        float(x)
    with pytest.raises(KeyError, match="'x'"):
        evaluate([x], {"z": [1.0]})
