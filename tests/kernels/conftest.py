"""Random programs on generic scalars and ways to build, shared by the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from solvers.kernels import Kernel, _request, build_kernel, prelude, scalar

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


@pytest.fixture
def random_program() -> Callable[..., Program]:
    return make_program


@pytest.fixture
def device_text(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    """Build the text that CUDA gets with the compiler of the CPU."""

    def build_on_host(body: str, arguments: Sequence[tuple[str, str]]) -> Kernel:
        with monkeypatch.context() as patch:
            patch.setattr(_request, "prelude", lambda *_, **__: prelude(1, device="cuda"))
            return build_kernel("device_text", body, arguments, lanes=1)

    return build_on_host


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return "cuda"
