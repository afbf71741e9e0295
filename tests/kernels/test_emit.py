"""Emitted code does what the interpreter does, in every lane, for every lane count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solvers.kernels import (
    Tape,
    aligned_empty,
    build_kernel,
    emit,
    emit_block,
    evaluate,
    pack,
    prelude,
    reverse,
    scalar,
    unpack,
)
from solvers.kernels.emit import LANE_COUNTS

from .conftest import make_program

PROGRAMS = 25


def run(outputs: list, x: torch.Tensor, lanes: int, *, fuse: bool = True) -> torch.Tensor:
    stores = [("y", i, y) for i, y in enumerate(outputs)]
    text = emit_block(stores) if fuse else "{" + emit(stores) + "}"
    n, m = x.shape[1], len(outputs)
    body = f"const V* x = points + {n}*block; V* y = values + {m}*block;\n{text}"
    arguments = [("points", "V*"), ("values", "V*")]
    sizes = {"points": n, "values": m}
    kernel = build_kernel("test_emit", body, arguments, lanes=lanes, sizes=sizes)
    points = pack(x, lanes)
    values = aligned_empty(len(points), m, lanes)
    kernel(len(points), points, values)
    return unpack(values, len(x))


def reference(outputs: list, x: torch.Tensor) -> torch.Tensor:
    rows = evaluate(outputs, {"x": x})
    return torch.stack([torch.as_tensor(r, dtype=torch.float64).expand(len(x)) for r in rows], 1)


@pytest.mark.parametrize("lanes", LANE_COUNTS)
@pytest.mark.parametrize("fuse", [True, False])
def test_compiled_programs_match_interpreter_and_torch(lanes: int, fuse: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(lanes).normal(size=(29, 3)))
    tape = Tape()
    inputs = tape.inputs("x", 3)
    outputs: list = []
    direct: list = []
    for seed in range(PROGRAMS):
        outputs += make_program(seed)(inputs)
        direct += make_program(seed)([x[:, i] for i in range(3)])
    outputs += reverse([(y, 1.0) for y in outputs], inputs)
    values = run(outputs, x, lanes, fuse=fuse)
    torch.testing.assert_close(values, reference(outputs, x), rtol=1e-10, atol=1e-10)
    expected = torch.stack(
        [torch.as_tensor(d, dtype=torch.float64).expand(len(x)) for d in direct], 1
    )
    torch.testing.assert_close(values[:, : len(direct)], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_conditions_constants_and_nan(lanes: int) -> None:
    tape = Tape()
    x, y = tape.inputs("x", 2)
    outputs = [
        x > y,
        ~(x >= y),
        (x > 0.0) & (y > 0.0),
        (x > 0.0) | (y > 0.0),
        math.inf,
        -math.inf,
        math.nan,
        0.1,
        scalar.maximum(x, y),
        scalar.minimum(x, y),
        scalar.maximum(x, 0.5),
        scalar.minimum(y, 0.5),
        abs(x),
        x * math.inf,
        x,
    ]
    nan = math.nan
    x = torch.tensor(
        [[1.0, 2.0], [2.0, 1.0], [-1.0, -1.0], [nan, 1.0], [1.0, nan]], dtype=torch.float64
    )
    expected = evaluate(
        [scalar.where(y, 1.0, 0.0) if i < 4 else y for i, y in enumerate(outputs)], {"x": x}
    )
    rows = torch.stack([torch.as_tensor(r, dtype=torch.float64).expand(5) for r in expected], 1)
    torch.testing.assert_close(run(outputs, x, lanes), rows, rtol=0, atol=0, equal_nan=True)


def test_output_array_may_be_the_input_array() -> None:
    tape = Tape()
    x = tape.inputs("x", 3)
    # a rotation of places: each store would destroy what the next one reads
    body = "V* x = data + 3*block;\n" + emit_block([("x", i, x[(i + 1) % 3]) for i in range(3)])
    kernel = build_kernel("test_rotate", body, [("data", "V*")], lanes=2)
    start = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    data = pack(start, 2)
    kernel(1, data)
    assert unpack(data, 2).tolist() == [[1, 2, 0], [4, 5, 3]]


def test_blocks_stand_in_loops_and_read_plain_variables() -> None:
    tape = Tape()
    x, h = tape.input("x"), tape.input("h", None)
    body = (
        "V* x = data + block; for (int i = 0; i < steps; ++i) "
        + emit_block([("x", 0, x + h * x)])
        + ""
    )
    arguments = [("data", "V*"), ("h", "double"), ("steps", "int")]
    kernel = build_kernel("test_growth", body, arguments, lanes=4)
    data = pack(torch.tensor([1.0, 2.0, 3.0]), 4)
    kernel(1, data, 0.5, 3)
    assert unpack(data, 3)[:, 0].tolist() == [1.5**3, 2 * 1.5**3, 3 * 1.5**3]


def test_sine_and_cosine_share_one_reduction() -> None:
    x = Tape().input("x")
    text = emit([("y", 0, scalar.sin(x)), ("y", 1, scalar.cos(x))])
    assert text.count("vsincos(") == 1
    assert "vsin(" in emit([("y", 0, scalar.sin(x))])


def test_dead_code_is_not_written() -> None:
    x = Tape().input("x")
    _dead = scalar.exp(x)
    assert "vexp" not in emit([("y", 0, x * 2.0)])


def test_misuse_is_named() -> None:
    x = Tape().input("x")
    with pytest.raises(ValueError, match="twice"):
        emit([("y", 0, x), ("y", 0, x)])
    with pytest.raises(ValueError, match="identifier"):
        emit([("y 1", 0, x)])
    with pytest.raises(ValueError, match="0 or more"):
        emit([("y", -1, x)])
    with pytest.raises(TypeError, match="str"):
        emit([("y", 0, "three")])
    with pytest.raises(ValueError, match="one Tape"):
        emit([("y", 0, x), ("y", 1, Tape().input("x"))])
    with pytest.raises(ValueError, match="lanes is 3"):
        prelude(3)
