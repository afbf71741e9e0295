"""How fast are layers that solve quadratic programs, forward and backward, beside their peers?

Programs: nearest point to y among ``Gx <= h``, ``Ax = b``, about half of the rows active. G and A
are shared; gradients go to y, h and b. All layers run in turns, one thread. The residual is the
largest violation of the optimality conditions; the gradient of each peer is compared with ours.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from record import Column, Result, Size
from timing import alternate
from torch import Tensor

from constraints import AffineEquality, QuadraticProgram

__all__ = ["PEERS", "missing", "run"]

TITLE = "CPU time of a layer that solves quadratic programs, forward + backward [ms], one thread"
SIZES = {
    "tiny": ((8, 12, 0, 16), (20, 20, 5, 1)),
    "small": ((8, 12, 0, 512), (20, 20, 5, 1), (20, 20, 5, 128), (50, 50, 12, 32)),
    "full": (
        (8, 12, 0, 4096),
        (20, 20, 5, 1),
        (20, 20, 5, 128),
        (50, 50, 12, 128),
        (100, 100, 25, 64),
        (200, 200, 50, 32),
    ),
}
PEERS = {"default": "cvxpylayers", "moreau": "moreau", "proxqp": "proxsuite"}
# The default of cvxpylayers takes minutes beyond this many unknowns times items.
DEFAULT_LIMIT = 2600

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Programs:
    """A batch with shared rows."""

    y: Tensor
    G: Tensor
    h: Tensor
    A: Tensor
    b: Tensor

    @property
    def identity(self) -> Tensor:
        return torch.eye(self.y.shape[1], dtype=torch.float64)


def make_programs(
    n: int, m: int, p: int, batch: int, seed: int, *, spread: float = 0.0
) -> Programs:
    """Feasible programs; ``spread`` decades of row lengths to either side of one."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    G, A, x0 = normal(m, n) / n**0.5, normal(p, n) / n**0.5, normal(batch, n)
    slack = 0.3 * torch.rand(batch, m, generator=g, dtype=torch.float64)
    scale = 10 ** (spread * (2 * torch.rand(m, generator=g, dtype=torch.float64) - 1))
    h = (x0 @ G.T + slack) * scale
    return Programs(x0 + normal(batch, n), G * scale[:, None], h, A, x0 @ A.T)


def missing(package: str) -> str | None:
    """Why a peer is left out, or None."""
    found = importlib.util.find_spec(package) is not None
    return None if found else f"{package} is not installed"


def own_layer(programs: Programs) -> Layer:
    layer, identity = QuadraticProgram(), programs.identity

    def call(y: Tensor, h: Tensor, b: Tensor) -> Tensor:
        return layer(Q=identity, q=-y, G=programs.G, h=h, A=programs.A, b=b)[0]

    return call


def cvxpy_layer(programs: Programs, solver: str | None) -> Layer:
    import cvxpy
    from cvxpylayers.torch import CvxpyLayer

    n, m, p = programs.y.shape[1], len(programs.G), len(programs.A)
    x, y, h = cvxpy.Variable(n), cvxpy.Parameter(n), cvxpy.Parameter(m)
    b = cvxpy.Parameter(p) if p else None
    rows = [programs.G.numpy() @ x <= h]
    if b is not None:
        rows.append(programs.A.numpy() @ x == b)
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(x) - y @ x), rows)
    parameters = [y, h] if b is None else [y, h, b]
    layer = CvxpyLayer(problem, parameters, [x], solver=solver)

    def call(*values: Tensor) -> Tensor:
        return layer(*values[: len(parameters)])[0]

    return call


def proxqp_layer(programs: Programs) -> Layer:
    from proxsuite.torch.qplayer import QPFunction

    solve = QPFunction(structural_feasibility=True, omp_parallel=False)
    batch = len(programs.y)

    def repeat(tensor: Tensor) -> Tensor:
        return tensor.expand(batch, *tensor.shape).contiguous()

    Q, A, G = repeat(programs.identity), repeat(programs.A), repeat(programs.G)
    lower = torch.full_like(programs.h, -1e20)

    def call(y: Tensor, h: Tensor, b: Tensor) -> Tensor:
        return solve(Q, -y, A, b, G, lower, h)[0]

    return call


def layers(programs: Programs, batch_size: int) -> tuple[dict[str, Layer], dict[str, str]]:
    """What can run here, and why the others cannot."""
    made: dict[str, Layer] = {"own": own_layer(programs)}
    makers: dict[str, Callable[[], Layer]] = {
        "default": lambda: cvxpy_layer(programs, None),
        "moreau": lambda: cvxpy_layer(programs, "MOREAU"),
        "proxqp": lambda: proxqp_layer(programs),
    }
    left_out = {}
    for name, make in makers.items():
        reason = missing(PEERS[name])
        if name == "default" and batch_size * programs.y.shape[1] > DEFAULT_LIMIT:
            reason = "takes too long at this size"
        if reason is None:
            made[name] = make()
        else:
            left_out[name] = reason
    return made, left_out


def forward_backward(layer: Layer, programs: Programs, weight: Tensor) -> dict[str, Tensor]:
    """Solution and gradients."""
    inputs = [t.clone().requires_grad_() for t in (programs.y, programs.h, programs.b)]
    x = layer(*inputs)
    (x * weight).sum().backward()
    found = {"x": x.detach()}
    for name, tensor in zip("yhb", inputs, strict=True):
        found[name] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    return found


def violation(programs: Programs, x: Tensor) -> float:
    """Largest violation of a row, relative to its right-hand side."""
    above = ((x @ programs.G.T - programs.h) / (1 + programs.h.abs())).clamp(min=0.0)
    apart = (x @ programs.A.T - programs.b).abs() / (1 + programs.b.abs())
    return max(above.max().item(), apart.max().item() if apart.numel() else 0.0)


def row_of(
    size: tuple[int, int, int, int], seed: int, repetitions: int, spread: float
) -> dict[str, Any]:
    n, m, p, batch = size
    programs = make_programs(n, m, p, batch, seed, spread=spread)
    weight = torch.randn(batch, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    made, left_out = layers(programs, batch)
    found: dict[str, dict[str, Tensor]] = {}
    for name, layer in list(made.items()):
        try:
            found[name] = forward_backward(layer, programs, weight)
        except Exception as error:  # a peer that cannot do this size is a row, not an end
            left_out[name] = f"{type(error).__name__}: {str(error)[:80]}"
            del made[name]
    many = max(1, 64 // batch)

    def work(layer: Layer) -> Callable[[], None]:
        def call() -> None:
            for _ in range(many):
                forward_backward(layer, programs, weight)

        return call

    timings = alternate({k: work(v) for k, v in made.items()}, repetitions=repetitions)
    row: dict[str, Any] = {"size": f"{n} {m} {p} x {batch}", "spread": spread, "left_out": left_out}
    for name in made:
        row[name] = 1e3 * timings.median(name) / many
        row[f"violation_{name}"] = violation(programs, found[name]["x"])
        row[f"gradient_{name}"] = max(
            _relative(found[name][key], found["own"][key]) for key in "yhb"
        )
    _, report = QuadraticProgram()(
        Q=programs.identity, q=-programs.y, G=programs.G, h=programs.h, A=programs.A, b=programs.b
    )
    row["residual"] = report.residual.max().item()
    row["iterations"] = report.iterations.double().mean().item()
    peers = [name for name in made if name != "own"]
    if peers:
        row["best"] = min(peers, key=lambda name: row[name])
        row["gain"] = timings.ratio(row["best"], "own")
    return row


def _relative(a: Tensor, b: Tensor) -> float:
    size = b.abs().max().item() if b.numel() else 0.0
    return ((a - b).abs().max().item() / size) if size else 0.0


def projection_row(n: int, p: int, batch: int, seed: int, repetitions: int) -> dict[str, Any]:
    """Equalities alone have a closed form."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(p, n, generator=g, dtype=torch.float64)
    x = torch.randn(batch, n, generator=g, dtype=torch.float64).requires_grad_()
    b = torch.randn(batch, p, generator=g, dtype=torch.float64).requires_grad_()
    layer = AffineEquality(A)

    def call() -> None:
        x.grad = b.grad = None
        layer(x, b).sum().backward()

    timings = alternate({"own": call}, repetitions=4 * repetitions)
    gap = (layer(x, b) @ A.T - b).abs().max().item()
    return {
        "size": f"equalities {n} 0 {p} x {batch}",
        "own": 1e3 * timings.median("own"),
        "violation_own": gap,
    }


def run(size: Size, seed: int = 0) -> Result:
    """Time all layers at a ladder of sizes."""
    warnings.filterwarnings("ignore")
    repetitions = 2 if size == "tiny" else 5
    begun = time.perf_counter()
    rows = [row_of(each, seed, repetitions, 0.0) for each in SIZES[size]]
    rows.append(row_of((20, 20, 5, 16 if size == "tiny" else 128), seed, repetitions, 4.0))
    rows[-1]["size"] += ", rows 1e-4..1e4"
    projection = (20, 5, 4) if size == "tiny" else (200, 50, 128)
    rows.append(projection_row(*projection, seed, repetitions))
    left_out: Mapping[str, str] = {}
    for row in rows:
        left_out = {**left_out, **row.get("left_out", {})}
    gains = [row["gain"] for row in rows if "gain" in row]
    verdict = [
        f"Violation at most {max(row['violation_own'] for row in rows):.1g}, residual at most "
        f"{max(row.get('residual', 0.0) for row in rows):.1g} of the data."
    ]
    if gains:
        verdict.insert(0, f"{min(gains):.1f} to {max(gains):.1f} times faster than the best peer.")
    verdict += [f"{name} left out in places: {reason}." for name, reason in left_out.items()]
    return Result(
        title=TITLE,
        columns=(
            Column("size", "n m p x batch"),
            Column("own", "QuadraticProgram"),
            Column("proxqp", "ProxQP"),
            Column("moreau", "Moreau"),
            Column("default", "cvxpylayers default"),
            Column("best", "best peer"),
            Column("gain", "best peer / own", ".1f"),
            Column("violation_own", "violation", ".0e"),
            Column("gradient_moreau", "gradient, Moreau to own", ".0e"),
            Column("gradient_proxqp", "ProxQP to own", ".0e"),
        ),
        rows=rows,
        settings={"repetitions": repetitions, "seconds": time.perf_counter() - begun},
        verdict=verdict,
    )
