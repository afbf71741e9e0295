"""Building and calling: cache, threads, argument checks, messages of the compiler."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from solvers.core import PhysimError, SettingsError, ShapeError
from solvers.kernels import (
    KernelBuildError,
    KernelPart,
    Tape,
    aligned_empty,
    build_kernel,
    emit_block,
    evaluate,
    operation_count,
    pack,
    scalar,
    unpack,
)

SCALE = "for (int i = 0; i < n; ++i) y[n*block + i] = factor * x[n*block + i];"
ARGUMENTS = [("x", "V*"), ("y", "V*"), ("factor", "double"), ("n", "int")]


def scale_kernel(lanes: int = 4):
    return build_kernel("test_scale", SCALE, ARGUMENTS, lanes=lanes, sizes={"x": 3, "y": 3})


def test_numpy_and_torch_arguments() -> None:
    kernel = scale_kernel()
    x = torch.arange(30.0, dtype=torch.float64).reshape(10, 3)
    points = pack(x, 4)
    values = aligned_empty(*points.shape)
    kernel(3, points, values, 2.5, 3)
    torch.testing.assert_close(unpack(values, 10), 2.5 * x, rtol=0, atol=0)
    values.zero_()
    kernel(3, points.numpy(), values.numpy(), np.float64(2.5), np.int64(3))
    torch.testing.assert_close(unpack(values, 10), 2.5 * x, rtol=0, atol=0)


def test_part_of_the_blocks() -> None:
    kernel = scale_kernel()
    points = pack(torch.ones(16, 3, dtype=torch.float64), 4)
    values = aligned_empty(*points.shape).zero_()
    kernel(2, points, values, 7.0, 3, first_block=1)
    assert values.sum(dim=(1, 2)).tolist() == [0.0, 84.0, 84.0, 0.0]
    kernel(0, points, values, 9.0, 3)
    assert values.max() == 7.0


def test_same_content_is_built_once() -> None:
    assert scale_kernel() is scale_kernel()
    assert scale_kernel() is not scale_kernel(lanes=2)
    assert "lanes=4" in repr(scale_kernel())


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_threads_give_the_same_bits(threads: int) -> None:
    tape = Tape()
    x = tape.inputs("x", 3)
    body = "V* x = data + 3*block; for (int i = 0; i < 50; ++i)" + emit_block(
        [("x", i, scalar.sin(x[i] * 1.7 + x[(i + 1) % 3])) for i in range(3)]
    )
    kernel = build_kernel("test_threads", body, [("data", "V*")], lanes=4, sizes={"data": 3})
    start = torch.from_numpy(np.random.default_rng(8).normal(size=(41, 3)))
    serial, split = pack(start, 4), pack(start, 4)
    kernel(len(serial), serial)
    kernel.launch_threads(len(split), threads, split)
    assert torch.equal(serial, split)


def test_wrong_arguments_are_named() -> None:
    kernel = scale_kernel()
    x, y = aligned_empty(3, 3, 4).zero_(), aligned_empty(3, 3, 4)
    with pytest.raises(TypeError, match="got 2 values, expected 4: x, y, factor, n"):
        kernel(3, x, y)
    with pytest.raises(TypeError, match=r"'x'.*float32"):
        kernel(3, x.float(), y, 1.0, 3)
    with pytest.raises(TypeError, match=r"'y'.*list"):
        kernel(3, x, [1.0], 1.0, 3)
    with pytest.raises(TypeError, match=r"'y'.*int32"):
        kernel(3, x, np.zeros(36, np.int32), 1.0, 3)
    with pytest.raises(ShapeError, match=r"'x'.*not contiguous"):
        kernel(3, aligned_empty(3, 4, 3).zero_().transpose(1, 2), y, 1.0, 3)
    with pytest.raises(ShapeError, match=r"'x'.*aligned_empty"):
        kernel(2, aligned_empty(37)[1:], y, 1.0, 3)
    with pytest.raises(ShapeError, match=r"'x' has 36 numbers, expected 12 for each of 4 blocks"):
        kernel(4, x, y, 1.0, 3)
    with pytest.raises(ShapeError):
        kernel(1, x, y, 1.0, 3, first_block=3)
    with pytest.raises(TypeError, match=r"'factor'.*number"):
        kernel(3, x, y, "two", 3)
    with pytest.raises(TypeError, match=r"'n'.*whole number"):
        kernel(3, x, y, 1.0, 3.5)
    with pytest.raises(TypeError, match=r"'n'.*32 bits"):
        kernel(3, x, y, 1.0, 2**31)
    with pytest.raises(TypeError, match=r"'x' requires a gradient.*detach"):
        kernel(3, x.clone().requires_grad_(), y, 1.0, 3)
    with pytest.raises(SettingsError, match="blocks"):
        kernel(-1, x, y, 1.0, 3)
    with pytest.raises(SettingsError, match="threads is 0"):
        kernel.launch_threads(3, 0, x, y, 1.0, 3)


def test_wrong_requests_are_named() -> None:
    with pytest.raises(SettingsError, match="identifier"):
        build_kernel("a b", "", [], lanes=1)
    with pytest.raises(SettingsError, match="'tpu'"):
        build_kernel("a", "", [], lanes=1, device="tpu")
    with pytest.raises(SettingsError, match="'float'"):
        build_kernel("a", "", [("x", "float")], lanes=1)
    with pytest.raises(SettingsError, match="'block'"):
        build_kernel("a", "", [("block", "int")], lanes=1)
    with pytest.raises(SettingsError, match="lanes is 16"):
        build_kernel("a", "", [], lanes=16)
    with pytest.raises(SettingsError, match="'z'"):
        build_kernel("a", "", [("x", "V*")], lanes=1, sizes={"z": 1})


def test_compiler_complaints_reach_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHYSIM_CACHE", str(tmp_path))
    with pytest.raises(KernelBuildError, match="undeclared_name") as caught:
        build_kernel("test_broken", "x[block] = undeclared_name;", [("x", "V*")], lanes=2)
    assert isinstance(caught.value, PhysimError)
    text = Path(caught.value.source).read_text()
    assert "undeclared_name" in text
    # the line that is named is the line in the kept text
    number = int(str(caught.value).split(".cpp:")[1].split(":")[0])
    assert "undeclared_name" in text.splitlines()[number - 1]
    assert "error" not in capfd.readouterr().err
    assert scale_kernel() is not None


def run_python(program: str, cache: Path) -> str:
    environment = {**os.environ, "PHYSIM_CACHE": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stderr == ""
    return result.stdout


@pytest.mark.slow
def test_second_process_loads_from_the_cache(tmp_path: Path) -> None:
    program = """
        from solvers.kernels import aligned_empty, build_kernel
        x = aligned_empty(1, 1, 2).fill_(3.0)
        kernel = build_kernel("cached", "x[block] = vexp(vsin(x[block]));", [("x", "V*")], lanes=2)
        kernel(1, x)
        print(repr(x[0, 0, 0].item()))
    """
    first = run_python(program, tmp_path)
    objects = sorted(tmp_path.rglob("*.o"))
    assert len(objects) == 1  # $PHYSIM_CACHE is where it went
    stamp = objects[0].stat().st_mtime_ns
    assert run_python(program, tmp_path) == first
    assert sorted(tmp_path.rglob("*.o")) == objects
    assert objects[0].stat().st_mtime_ns == stamp  # not compiled again


@pytest.mark.slow
def test_import_does_not_load_warp(tmp_path: Path) -> None:
    program = "import sys, solvers.kernels; print('warp' in sys.modules)"
    assert run_python(program, tmp_path).strip() == "False"


def test_calls_are_cheap() -> None:
    kernel = scale_kernel()
    x = aligned_empty(3, 3, 4).zero_()
    kernel(3, x, x, 1.0, 3)
    start = time.perf_counter()
    for _ in range(500):
        kernel(3, x, x, 1.0, 3)
    # about 5 us; the bound leaves room for a busy machine
    assert (time.perf_counter() - start) / 500 < 200e-6


def test_kernel_runs_without_private_names_of_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    from solvers.kernels import _warp

    monkeypatch.setattr(_warp, "_direct_call", lambda command: None)
    kernel = build_kernel(
        "test_fallback", "x[block] += h;", [("x", "V*"), ("h", "double")], lanes=2
    )
    x = aligned_empty(3, 2).zero_()
    kernel(2, x, 1.5, first_block=1)
    assert x.tolist() == [[0.0, 0.0], [1.5, 1.5], [1.5, 1.5]]


@pytest.mark.slow
def test_ten_thousand_statements_compile() -> None:
    draw = random.Random(9)
    tape = Tape()
    pool = list(tape.inputs("x", 20))
    while len(tape) < 14_000:
        a, b = draw.choice(pool[-60:]), draw.choice(pool[-200:])
        kind = draw.random()
        value = a * b if kind < 0.5 else a - b if kind < 0.95 else scalar.sqrt(a * a + 1.0)
        pool.append(value * 0.5 + 0.1)
    outputs = pool[-100:]
    assert operation_count(outputs).total() > 10_000
    body = "const V* x = points + 20*block; V* y = values + 100*block;\n" + emit_block(
        [("y", i, y) for i, y in enumerate(outputs)]
    )
    start = time.perf_counter()
    kernel = build_kernel("test_large", body, [("points", "V*"), ("values", "V*")], lanes=8)
    assert time.perf_counter() - start < 60
    x = torch.from_numpy(np.random.default_rng(9).normal(size=(16, 20)))
    values = aligned_empty(2, 100, 8)
    kernel(2, pack(x, 8), values)
    expected = torch.stack(evaluate(outputs, {"x": x}), 1)
    torch.testing.assert_close(unpack(values, 16), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 3])
def test_trusted_launches_do_the_same(threads: int) -> None:
    kernel = scale_kernel()
    x = pack(torch.arange(24, dtype=torch.float64).reshape(8, 3), 4)
    checked, trusted = (aligned_empty(*x.shape).zero_() for _ in range(2))
    kernel(2, x, checked, 2.0, 3)
    kernel.launch_trusted(2, threads, x, trusted, 2.0, 3)
    assert torch.equal(checked, trusted)
    assert checked.any()


ROOTS = KernelPart(
    "roots",
    (("x", "const V*"), ("least", "double"), ("found", "M"), ("y", "V*")),
    "y[0] = found & (x[0] >= least) ? vsqrt(x[0]) : V(least);",
)


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_part_is_called_by_name_with_lanes_masks_and_numbers(lanes: int) -> None:
    body = "roots(x + block, 1.0, x[block] < 30.0, y + block);"
    kernel = build_kernel("test_part", body, [("x", "V*"), ("y", "V*")], lanes=lanes, parts=[ROOTS])
    values = torch.tensor([[0.5], [4.0], [9.0], [36.0], [16.0]], dtype=torch.float64)
    points = pack(values, lanes)
    outcome = aligned_empty(*points.shape)
    kernel(points.shape[0], points, outcome)
    assert unpack(outcome, 5)[:, 0].tolist() == [1.0, 2.0, 3.0, 1.0, 4.0]


def test_parts_are_part_of_a_kernels_identity() -> None:
    arguments = [("y", "V*")]
    kernels = []
    for value in ("1.0", "2.0"):
        part = KernelPart("put", (("y", "V*"),), f"y[0] = V({value});")
        kernels.append(build_kernel("test_put", "put(y);", arguments, lanes=1, parts=[part]))
    outcome = aligned_empty(1, 1, 1)
    for kernel, expected in zip(kernels, (1.0, 2.0), strict=True):
        kernel(1, outcome)
        assert outcome.item() == expected


def test_broken_part_is_kept_and_complained_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSIM_CACHE", str(tmp_path))
    part = KernelPart("broken", (("y", "V*"),), "y[0] = no_such_thing;")
    with pytest.raises(KernelBuildError, match="no_such_thing") as raised:
        build_kernel("test_broken", "broken(y);", [("y", "V*")], lanes=1, parts=[part])
    kept = [path for path in tmp_path.rglob("*.cpp") if "no_such_thing" in path.read_text()]
    assert kept
    assert Path(raised.value.source).exists()


def test_part_must_have_a_name_of_its_own() -> None:
    with pytest.raises(SettingsError, match="part 'y'"):
        build_kernel("test_name", "y(y);", [("y", "V*")], lanes=1, parts=[KernelPart("y", (), ";")])
