"""Generic scalars: what folds, what stays a number, and that all three kinds agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.kernels import Tape, evaluate, scalar

NUMBERS = st.floats(-10, 10, allow_nan=False)


class Untouchable:
    """Fails in any arithmetic, so that a fold is seen to happen before it."""

    def __neg__(self) -> str:
        return "negated"


X = Untouchable()


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_exact_zero_and_one_fold_before_any_arithmetic(zero: float) -> None:
    assert scalar.add(zero, X) is X
    assert scalar.add(X, zero) is X
    assert scalar.subtract(X, zero) is X
    assert scalar.subtract(zero, X) == "negated"
    assert scalar.multiply(zero, X) == 0.0
    assert scalar.multiply(X, zero) == 0.0
    assert scalar.multiply(1, X) is X
    assert scalar.multiply(X, 1.0) is X
    assert scalar.multiply(-1.0, X) == "negated"
    assert scalar.divide(X, 1) is X
    assert scalar.divide(zero, X) == 0.0
    assert scalar.negative(zero) == 0.0


def test_almost_zero_does_not_fold() -> None:
    x = torch.ones(3, dtype=torch.float64)
    assert isinstance(scalar.multiply(1e-300, x), torch.Tensor)
    assert scalar.add(1e-300, x) is not x


def test_division_by_number_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError, match="denominator"):
        scalar.divide(torch.ones(2), 0.0)
    with pytest.raises(ZeroDivisionError):
        Tape().input("x") / 0.0


@given(NUMBERS, NUMBERS)
def test_number_tensor_and_symbol_agree(a: float, b: float) -> None:
    def program(x, y):
        s, c = scalar.sin_cos(x)
        values = [
            scalar.add(x, y),
            scalar.subtract(x, y),
            scalar.multiply(x, y),
            scalar.divide(x, scalar.add(200.0, y)),
            scalar.reciprocal(scalar.add(200.0, y)),
            scalar.negative(x),
            s,
            c,
            scalar.tan(scalar.multiply(0.1, x)),
            scalar.exp(x),
            scalar.tanh(x),
            scalar.log(scalar.add(0.5, scalar.square(x))),
            scalar.power(scalar.add(0.5, scalar.square(x)), 0.3),
            scalar.power(scalar.add(0.5, scalar.square(x)), scalar.multiply(0.01, y)),
            scalar.power(x, 3),
            scalar.power(scalar.add(0.5, scalar.square(x)), -1.5),
            scalar.sqrt(scalar.absolute(x)),
            scalar.maximum(x, y),
            scalar.minimum(x, y),
            scalar.maximum(x, 1.0),
            scalar.minimum(1.0, y),
            scalar.where(scalar.greater(x, y), x, 3.0),
            scalar.where(scalar.less(x, y), 1.0, 2.0),
        ]
        return values

    numbers = program(a, b)
    assert all(type(v) in (int, float) for v in numbers)
    tensors = program(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    tape = Tape()
    symbols = evaluate(program(*tape.inputs("x", 2)), {"x": [a, b]})
    for number, tensor, symbol in zip(numbers, tensors, symbols, strict=True):
        assert float(tensor) == pytest.approx(number, rel=1e-14, abs=1e-300)
        assert float(symbol) == pytest.approx(number, rel=1e-14, abs=1e-300)


def test_maximum_and_minimum_keep_nan() -> None:
    x = torch.tensor([math.nan], dtype=torch.float64)
    for result in (
        scalar.maximum(math.nan, 1.0),
        scalar.minimum(1.0, math.nan),
        scalar.maximum(x, 0.0),
        scalar.minimum(torch.ones(1, dtype=torch.float64), x),
    ):
        assert math.isnan(float(result))


def test_conditions_of_numbers_choose_at_once() -> None:
    assert scalar.where(scalar.greater(2, 1), X, None) is X
    assert scalar.logical_and(True, X) is X
    assert scalar.logical_and(X, False) is False
    assert scalar.logical_or(X, True) is True
    assert scalar.logical_not(False) is True
    tape = Tape()
    x = tape.input("x")
    assert scalar.where(scalar.greater(tape.constant(2.0), 1.0), x, 5.0) is x


def test_where_of_two_numbers_by_a_tensor_is_float64() -> None:
    chosen = scalar.where(torch.tensor([True, False]), 0.1, 0.2)
    assert chosen.dtype == torch.float64
    assert chosen.tolist() == [0.1, 0.2]


def test_batch_shapes_broadcast() -> None:
    a = torch.rand(3, 1, dtype=torch.float64)
    b = torch.rand(4, dtype=torch.float64)
    assert scalar.maximum(a, b).shape == (3, 4)
    assert scalar.add(a, b).shape == (3, 4)


def test_structural_zero_and_one_are_recognised() -> None:
    tape = Tape()
    x = tape.input("x")
    assert scalar.is_zero(0)
    assert scalar.is_zero(x - x)
    assert not scalar.is_zero(x)
    assert scalar.is_one(x / x)
    assert not scalar.is_zero(torch.zeros(()))
