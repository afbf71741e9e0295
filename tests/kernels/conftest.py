"""Programs, bodies, ways to build and recorded launches, shared by the tests of this folder."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

import physim
from solvers.kernels import (
    Kernel,
    KernelPart,
    Tape,
    _request,
    build,
    build_kernel,
    emit_block,
    prelude,
    scalar,
)

FUNCTIONS = """
const V a = points[2*block], b = points[2*block + 1];
V* const y = values + 20*block;
const M m = (a > b) | !(b <= 0.5);
V s, c;
vsincos(a, s, c);
y[0] = s; y[1] = c; y[2] = vsin(b); y[3] = vcos(b);
y[4] = vexp(a); y[5] = vtanh(b); y[6] = vsqrt(a); y[7] = vabs(b) + vlog(b * b + 1.0);
y[8] = vmax(a, b); y[9] = vmin(a, b); y[10] = vmax_number(a, 0.3); y[11] = vmin_number(a, -0.3);
y[12] = vselect(m, a, b); y[13] = vbool(m);
y[14] = vany(m) ? 1.0 : 0.0; y[15] = vall(m) ? 1.0 : 0.0;
y[16] = vsum(a); V kept = a; vput(kept, 0, vlane(b, 0)); y[17] = kept;
y[18] = a < 0.0 ? V(__builtin_inf()) : V(__builtin_nan(""));
y[19] = LANES + sizeof(VBITS);
"""
"""Body that uses every function of the prelude, on two numbers an item."""

Program = Callable[[list[Any]], list[Any]]


def make_program(seed: int, *, length: int = 40, smooth: bool = False) -> Program:
    """Draw a straight-line program whose values stay of order one."""

    def program(inputs: list[Any]) -> list[Any]:
        draw = random.Random(seed)
        pool: list[Any] = [*inputs, 0.0, 1.0, 0.75, -1.5]

        def bounded(x: Any) -> Any:
            return scalar.divide(x, scalar.sqrt(scalar.add(1.5, scalar.multiply(x, x))))

        steps: list[Callable[[Any, Any], Any]] = [
            scalar.add,
            scalar.subtract,
            scalar.multiply,
            lambda a, b: scalar.divide(a, scalar.add(1.25, scalar.square(b))),
            lambda a, b: scalar.negative(a),
            lambda a, b: scalar.sqrt(scalar.add(0.5, scalar.square(a))),
            lambda a, b: scalar.sin(scalar.multiply(3.0, a)),
            lambda a, b: scalar.subtract(*scalar.sin_cos(scalar.add(a, b))),
            lambda a, b: scalar.exp(scalar.negative(scalar.square(a))),
            lambda a, b: scalar.tanh(a),
        ]
        if not smooth:
            steps += [
                scalar.maximum,
                scalar.minimum,
                lambda a, b: scalar.absolute(a),
                lambda a, b: scalar.maximum(a, 0.1),
                lambda a, b: scalar.where(scalar.greater(a, b), a, scalar.multiply(2.0, b)),
                lambda a, b: scalar.where(
                    scalar.logical_or(
                        scalar.less(a, 0.3),
                        scalar.logical_and(scalar.greater_equal(b, a), scalar.less_equal(b, 0.9)),
                    ),
                    scalar.subtract(a, b),
                    0.5,
                ),
                lambda a, b: scalar.where(scalar.logical_not(scalar.less(a, b)), b, a),
            ]
        for _ in range(length):
            pool.append(bounded(draw.choice(steps)(draw.choice(pool), draw.choice(pool))))
        return pool[-4:]

    return program


def traced(program: Callable[[list[Any]], list[Any]], inputs: int) -> str:
    """Body that applies a program on generic scalars to each item."""
    x = Tape().inputs("x", inputs)
    outputs = program(list(x))
    return (
        f"const V* x = points + {inputs}*block; V* y = values + {len(outputs)}*block;\n"
        + emit_block([("y", i, y) for i, y in enumerate(outputs)])
    )


def edge_cases() -> np.ndarray:
    rng = np.random.default_rng(11)
    ends = [0.0, -0.0, 1e-300, 709.7, 710.0, -745.0, -746.0, np.inf, -np.inf, np.nan, 0.3, -0.3]
    pairs = np.array(np.meshgrid(ends, ends)).reshape(2, -1).T
    return np.concatenate([pairs, *(rng.normal(size=(500, 2)) * 10.0**k for k in range(-3, 6))])


class Launch(NamedTuple):
    """One launch: what it got and what it left."""

    kernel: Kernel
    blocks: int
    before: list[Any]
    after: list[Any]

    def replay(self, kernel: Callable[..., None], device: str = "cpu") -> list[Any]:
        """What another kernel leaves of the arguments."""
        values = [
            x.to(device, copy=True) if isinstance(x, torch.Tensor) else x for x in self.before
        ]
        kernel(self.blocks, *values)
        return [x.cpu() if isinstance(x, torch.Tensor) else x for x in values]


@pytest.fixture
def random_program() -> Callable[..., Program]:
    return make_program


@pytest.fixture
def random_body() -> Callable[..., str]:
    """Body of a random program with five inputs and four outputs an item."""
    return lambda seed, **options: traced(make_program(seed, **options), 5)


@pytest.fixture
def functions() -> str:
    return FUNCTIONS


@pytest.fixture
def function_points() -> np.ndarray:
    return edge_cases()


@pytest.fixture
def device_text(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    """Build the text that CUDA gets with the compiler of the CPU."""

    def build_on_host(
        body: str, arguments: Sequence[tuple[str, str]], parts: Sequence[KernelPart] = ()
    ) -> Kernel:
        with monkeypatch.context() as patch:
            patch.setattr(_request, "prelude", lambda *_, **__: prelude(1, device="cuda"))
            text = f"\n#define __ffsll __builtin_ffsll\n{body}"
            return build_kernel("device_text", text, arguments, lanes=1, parts=parts)

    return build_on_host


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return "cuda"


@pytest.fixture
def launches(robot: str, monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The middle launch of each kernel that steps of a robot and their gradient use."""
    recorded: dict[int, list[Launch]] = {}
    ordinary = Kernel.launch_trusted

    def launch(kernel: Kernel, blocks: int, threads: int, *values: Any) -> None:
        before = [copied(value) for value in values]
        ordinary(kernel, blocks, threads, *values)
        after = [copied(value) for value in values]
        recorded.setdefault(id(kernel), []).append(Launch(kernel, blocks, before, after))

    with monkeypatch.context() as patch:
        patch.setenv("PHYSIM_LANES", "1")
        patch.setattr(build, "_built", {})
        patch.setattr(Kernel, "launch_trusted", launch)
        simulate(robot)
    return [launches[len(launches) // 2] for launches in recorded.values()]


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def simulate(robot: str) -> None:
    file = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{robot}.xml"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = physim.load_model(file)
    simulator = physim.Simulator(model, timestep=0.01)
    controls = torch.from_numpy(np.random.default_rng(5).uniform(-1, 1, (120, 16, model.nu)))
    trajectory = simulator.rollout(simulator.initial_state(batch=16), controls)
    assert (trajectory.report.counts["min_gap"][50:70] < 1e-3).any(-1).all()  # in contact
    state = trajectory.state(60)
    for control in controls[60:64]:
        state, _ = simulator.step(state, control.requires_grad_())
    state.q.square().sum().backward()
