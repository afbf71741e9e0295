"""How fast are residuals of a network and their gradient, and what is left of the processor?

The equation is Burgers with exact initial and boundary values: value, first derivative and one
collapsed operator travel through the layers. The peak of multiply-add is measured in the same run;
the share counts the products of the layers alone, as if activations and residuals were free.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import torch
from record import Column, Result, Size
from timing import alternate

from solvers.derivatives import CompiledEngine, Layers, NestedEngine, ResidualProgram, SweepEngine
from solvers.kernels import aligned_empty, build_kernel, lane_count, scalar
from solvers.optim import FusedInverse, PlainInverse

__all__ = ["run"]

TITLE = "One evaluation of loss and gradient [ms], one thread, float64"
SHAPES = {
    "tiny": (((2, 8, 8, 1), 200),),
    "small": (((2, 20, 20, 20, 1), 2500), ((2, 64, 64, 64, 64, 1), 2500)),
    "full": (
        ((2, 20, 20, 20, 1), 2500),
        ((2, 20, 20, 20, 1), 10_000),
        ((2, 16, 16, 16, 16, 1), 4000),
        ((2, 64, 64, 64, 64, 1), 10_000),
    ),
}
UPDATES = {"tiny": (100,), "small": (921,), "full": (337, 921, 1897, 3441)}
PASSES = 10
NU = 0.01 / math.pi


def residual(fields: Any, x: Any, c: Any) -> Any:
    u = fields["u"]
    return u.t + u * u.x - c["nu"] * u.xx


def exact_ends(x: Any, n: Any) -> list[Any]:
    return [-1.0 * scalar.sin(math.pi * x[0]) + x[1] * (1.0 - x[0] * x[0]) * n[0]]


def peak() -> float:
    """Multiply-add peak of one core [GFLOP/s]: independent sums, as many as registers hold."""
    lanes, count = lane_count(), 100_000
    many = 24 if lanes == 8 else 12
    sums = range(many)
    body = (
        "const V x = o[0], y = o[1];\n"
        + " ".join(f"V a{i} = o[{i}];" for i in sums)
        + "{\n#pragma clang fp contract(fast)\nfor (int k = 0; k < n; ++k) {"
        + " ".join(f"a{i} = a{i}*x + y;" for i in sums)
        + "} }\n"
        + " ".join(f"o[{i}] = a{i};" for i in sums)
    )
    kernel = build_kernel("multiply_add", body, [("o", "V*"), ("n", "int")], lanes=lanes)
    buffer, best = aligned_empty(many, lanes).fill_(0.5), math.inf
    for _ in range(7):
        start = time.process_time()
        kernel(1, buffer, count)
        best = min(best, time.process_time() - start)
    return 2 * many * lanes * count / best / 1e9


def layer_operations(sizes: tuple[int, ...], channels: int, points: int) -> float:
    """Products and sums of the layers: forward, back to their inputs, and to their weights."""
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 2.0 * points * channels * (3 * sum(products) - products[0])


def engine_row(sizes: tuple[int, ...], count: int, repetitions: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    points[:, 0] = 2 * points[:, 0] - 1
    program = ResidualProgram(
        residual, Layers(sizes), fields=["u"], coordinates=["x", "t"], probe=points,
        coefficients={"nu": NU}, transform=exact_ends,
        embedding=lambda x: [x[0], 2.0 * x[1] - 1.0],
    )  # fmt: skip
    theta = program.layers.initial(seed)
    made: dict[str, Any] = {
        "compiled": CompiledEngine(program, points),
        "sweep": SweepEngine(program, points),
        "nested": NestedEngine(program, points, chunk=count),
    }
    gradients = {name: engine.loss_and_gradient(theta)[1] for name, engine in made.items()}
    timings = alternate(
        {name: (lambda e=engine: e.loss_and_gradient(theta)) for name, engine in made.items()},
        repetitions=repetitions,
    )
    fast = min(timings.seconds["compiled"])
    top = peak()
    rate = layer_operations(sizes, len(program.plan), count) / fast / 1e9
    difference = gradients["compiled"] - gradients["nested"]
    return {
        "what": f"{'x'.join(map(str, sizes[1:-1]))}, {count} points",
        **{name: 1e3 * min(seconds) for name, seconds in timings.seconds.items()},
        "over_sweep": timings.ratio("sweep", "compiled"),
        "over_nested": timings.ratio("nested", "compiled"),
        "rate": rate,
        "peak": top,
        "share": 100 * rate / top,
        "error": float(difference.norm() / gradients["nested"].norm()),
    }


def update_row(size: int, repetitions: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    h, s, g = rng.normal(size=(3, size))
    p, q = 0.3 * h + 0.2 * s, 0.2 * h + 0.7 * s
    fused, plain = FusedInverse(size), PlainInverse(size)

    def update(inverse: Any) -> None:
        # several in a row, because the matrix stays in the cache between steps of a search
        for _ in range(PASSES):
            inverse.change(0.9, h, p, s, q)
            inverse.product(g)

    timings = alternate(
        {"compiled": lambda: update(fused), "numpy": lambda: update(plain)},
        repetitions=repetitions,
    )
    return {
        "what": f"quasi-Newton pass, {size} parameters",
        "compiled": 1e3 * min(timings.seconds["compiled"]) / PASSES,
        "nested": 1e3 * min(timings.seconds["numpy"]) / PASSES,
        "over_nested": timings.ratio("numpy", "compiled"),
    }


def run(size: Size, seed: int) -> Result:
    repetitions = {"tiny": 1, "small": 9, "full": 15}[size]
    rows = [engine_row(sizes, count, repetitions, seed) for sizes, count in SHAPES[size]]
    rows += [update_row(count, repetitions, seed) for count in UPDATES[size]]
    engines = [row for row in rows if "share" in row]
    return Result(
        title=TITLE,
        columns=(
            Column("what", "network, points"),
            Column("compiled", "compiled"),
            Column("sweep", "torch sweep"),
            Column("nested", "autograd (numpy)"),
            Column("over_sweep", "sweep/compiled", ".1f"),
            Column("over_nested", "autograd/compiled", ".1f"),
            Column("rate", "layers [GFLOP/s]", ".0f"),
            Column("share", "of the peak [%]", ".0f"),
            Column("error", "gradient difference", ".0e"),
        ),
        rows=rows,
        settings={"equation": "Burgers", "nu": NU, "lanes": lane_count()},
        verdict=[
            f"Layers run at {min(r['share'] for r in engines):.0f} to "
            f"{max(r['share'] for r in engines):.0f} % of the multiply-add peak measured here, "
            f"{max(r['peak'] for r in engines):.0f} GFLOP/s; the rest is activations, loops and "
            "residuals.",
            "The last rows compare one update of the inverse Hessian with its product in numpy.",
        ],
    )
