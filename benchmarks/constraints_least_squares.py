"""What does a fit to the residual of an equation cost, with its gradient?

Rows of diffusion with sorption at random points, features of an untrained basis, one thread. All
methods start at zero and end at the same tolerance, relative to the residual. "functions of torch"
is a residual written for tensors that is traced as it stands; "torch residual" the form for those
that cannot be traced: they run in torch, sums over points in native text.
Peers: the same iteration on tensors, SciPy's trust region (forward only), and optimistix's and
jaxopt's Levenberg-Marquardt if ``PHYSIM_PEERS`` names a Python that has them; they need versions of
packages that ours do not allow, hence another interpreter. ``--only REGEX`` takes the sizes that it
matches.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import torch
from record import Column, Result, Size
from timing import alternate
from torch import Tensor

from constraints.experts import JetBasis
from constraints.systems.diffusion_sorption import DiffusionSorption
from solvers.nonlinear import (
    CompiledProblem,
    HybridProblem,
    LevenbergMarquardt,
    PointwiseProblem,
    cost_gradient,
    implicit_least_squares,
    newton_step,
)

__all__ = ["run"]

TITLE = "Fit of diffusion-sorption rows, forward and backward [CPU ms], one thread"
# Points, unknowns, items.
SIZES = {
    "tiny": ((512, 8, 1),),
    "small": ((4096, 16, 1), (16_384, 16, 1), (16_384, 64, 1), (4096, 16, 4)),
    "full": ((4096, 16, 1), (16_384, 16, 1), (16_384, 64, 1), (4096, 16, 4), (125_000, 64, 8)),
}
LARGE = 1_000_000
REPETITIONS = {"tiny": 2, "small": 7, "full": 7}
RIDGE, TOLERANCE = 1e-8, 1e-6
SYSTEM = DiffusionSorption()
KINDS: dict[str, type[PointwiseProblem]] = {
    "kernel": CompiledProblem,
    "functions of torch": CompiledProblem,
    "torch residual": HybridProblem,
    "tensors": PointwiseProblem,
}


def run(size: Size, seed: int = 0, only: str = "") -> Result:
    """Time every method on every size."""
    rows = []
    for points, unknowns, items in SIZES[size]:
        if re.search(only, f"{points} x {unknowns} x {items}"):
            rows += _measure(points, unknowns, items, REPETITIONS[size], seed)
    if not rows:
        raise SystemExit(f"--only {only!r} matches none of the sizes {SIZES[size]}")
    chosen = [row for row in rows if row["method"] == "kernel"]
    twins = [row for row in rows if row["method"] == "tensors"]
    error, rough = _gradient_errors(seed)
    gains = " and ".join(f"{row['ratio']:.1f}" for row in twins)
    return Result(
        title=TITLE,
        columns=(
            Column("size", "points x unknowns x items"),
            Column("method", "method"),
            Column("forward", "forward", ".4g"),
            Column("both", "forward + backward", ".4g"),
            Column("ratio", "over kernel", ".2f"),
            Column("iterations", "iterations", ".0f"),
            Column("cost", "cost reached", ".8g"),
            Column("memory", "peak memory / features", ".2f"),
            Column("note", "note"),
        ),
        rows=rows,
        settings={"ridge": RIDGE, "tolerance": TOLERANCE, "gradient_error": error, "gn": rough},
        verdict=[
            f"The kernel takes {chosen[-1]['both']:.3g} ms for the last size; tensors take {gains} "
            "times the kernel's time.",
            f"Its gradient differs from central differences by {error:.1e}; with the matrix of "
            f"Gauss and Newton alone it would be {100 * rough:.2g} % off.",
        ],
    )


def build(points: int, unknowns: int, items: int, seed: int) -> tuple[dict[str, Tensor], Any]:
    """Features and data, the same basis for all items and points of their own."""
    basis = JetBasis("xt", unknowns, width=64, frequency=3.0, seed=seed)
    rows = SYSTEM.rows()
    parts: dict[str, list[Tensor]] = {name: [] for name in rows}
    with torch.no_grad():
        for item in range(items):
            places = SYSTEM.points(points, seed=seed + item, edge=64)
            for name, family in rows.items():
                parts[name].append(basis(places[name], None, family.features))
    features = {name: torch.cat(some).requires_grad_() for name, some in parts.items()}
    return features, {"initial": [torch.full((items, 1), 0.1, dtype=torch.float64)]}


def problem(
    kind: type[PointwiseProblem],
    features: Mapping[str, Tensor],
    data: Any,
    *,
    is_torch: bool = False,
) -> Any:
    residuals = {name: family.residual for name, family in SYSTEM.rows().items()}
    if is_torch:
        residuals["equation"] = _equation
    return kind(residuals, features, data, ridge=RIDGE)


def _equation(u: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """The equation of the system as somebody writes it who thinks of tensors."""
    positive = 0.5 * (u + torch.sqrt(u.square() + SYSTEM.smoothing**2))
    retardation = 1.0 + SYSTEM.sorption * torch.pow(positive + 1e-6, SYSTEM.exponent - 1)
    return u_t - SYSTEM.diffusion * SYSTEM.duration / retardation * u_xx


def _measure(
    points: int, unknowns: int, items: int, repetitions: int, seed: int
) -> list[dict[str, Any]]:
    features, data = build(points, unknowns, items, seed)
    is_large = points * items * unknowns > LARGE * 4
    kinds = dict(KINDS)
    if is_large:
        del kinds["tensors"]
    solver = LevenbergMarquardt(tolerance=TOLERANCE)
    work: dict[str, Callable[[], Any]] = {}
    reports: dict[str, Any] = {}

    def solve(name: str) -> Any:
        made = problem(kinds[name], features, data, is_torch="torch" in name)
        solution = implicit_least_squares(made, solver=solver)
        reports[name] = solution.report
        return solution

    def both(name: str) -> None:
        for phi in features.values():
            phi.grad = None
        solve(name).value.square().sum().backward()

    for name in kinds:
        work[name] = lambda name=name: solve(name)
        work[f"{name} both"] = lambda name=name: both(name)
    timings = alternate(work, repetitions=1 if is_large else repetitions)
    label = f"{points} x {unknowns} x {items}"
    rows = []
    for name in kinds:
        rows.append(
            {
                "size": label,
                "method": name,
                "forward": 1e3 * timings.median(name),
                "both": 1e3 * timings.median(f"{name} both"),
                "ratio": timings.ratio(f"{name} both", "kernel both"),
                "iterations": float(reports[name].iterations.double().mean()),
                "cost": float(reports[name].counts["cost"].sum()),
                "memory": _memory(points, unknowns, items, seed, name),
            }
        )
    kernel = rows[0]["both"]
    if not is_large:
        rows.append({"size": label, "method": "SciPy trf", **_scipy(features, data, kernel)})
        rows += [{"size": label, **row} for row in _jax(features, kernel, repetitions)]
    return rows


def _memory(*arguments: Any) -> float | None:
    """Largest memory of a fresh process that solves once, in units of the features, on Linux."""
    call = f"import constraints_least_squares as b; print(b.measure_memory{arguments!r})"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, check=False, env=environment
    )
    return float(done.stdout) if done.returncode == 0 else None


def measure_memory(points: int, unknowns: int, items: int, seed: int, name: str) -> float:
    """Growth of the memory by a solve with its backward pass, features included.

    The kernel is compiled and torch is warm before.
    """
    torch.set_num_threads(1)
    kind = KINDS[name]

    def work(features: Mapping[str, Tensor], data: Any) -> None:
        made = problem(kind, features, data, is_torch="torch" in name)
        solver = LevenbergMarquardt(tolerance=TOLERANCE)
        implicit_least_squares(made, solver=solver).value.square().sum().backward()

    work(*build(64, unknowns, 1, seed))
    features, data = build(points, unknowns, items, seed)
    size = sum(8 * phi.numel() for phi in features.values())
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work(features, data)
    return 1.0 + (_status("VmHWM") - before) / size


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * float(next(line for line in lines if line.startswith(key)).split()[1])


def _scipy(features: Mapping[str, Tensor], data: Any, kernel: float) -> dict[str, Any]:
    """Forward pass, item by item, with the exact Jacobian."""
    made = problem(PointwiseProblem, features, data)
    count = made.unknowns
    cost, evaluations = 0.0, 0
    began = time.process_time()
    for item in range(made.items):
        some = PointwiseProblem(
            made.residuals,
            {name: phi.detach()[item : item + 1] for name, phi in features.items()},
            {name: [one[item : item + 1] for one in many] for name, many in data.items()},
        )

        def rows(w: np.ndarray[Any, Any], some: PointwiseProblem = some) -> Tensor:
            parts = some.rows(torch.as_tensor(w)[None])
            scaled = [
                math.sqrt(scale) * part.flatten()
                for scale, part in zip(some.scales, parts.values(), strict=True)
            ]
            return torch.cat([*scaled, math.sqrt(RIDGE) * torch.as_tensor(w)])

        def slopes(w: np.ndarray[Any, Any], rows: Any = rows) -> np.ndarray[Any, Any]:
            return np.asarray(torch.func.jacfwd(rows)(torch.as_tensor(w)))

        found = scipy.optimize.least_squares(
            lambda w, rows=rows: rows(w).numpy(),
            np.zeros(count),
            jac=slopes,
            ftol=1e-12,
            xtol=1e-9,
            gtol=1e-12,
            max_nfev=200,
        )
        cost += float(found.cost)
        evaluations += int(found.njev)
    seconds = time.process_time() - began
    return {
        "forward": 1e3 * seconds,
        "both": None,
        "ratio": 1e3 * seconds / kernel,
        "iterations": evaluations / made.items,
        "cost": cost,
        "note": "forward only",
    }


_PEER = """
import json, sys, time
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
given = np.load(sys.argv[1]); settings = json.loads(sys.argv[2])
phi = {k: jnp.asarray(given[k]) for k in ("equation", "initial", "left", "right")}
s = settings
def rows(w, phi):
    z = {k: jnp.einsum("mkn,n->mk", p, w) for k, p in phi.items()}
    u, u_t, u_xx = z["equation"].T
    positive = 0.5 * (u + jnp.sqrt(u * u + s["smoothing"] ** 2)) + 1e-6
    R = 1 + s["sorption"] * positive ** (s["exponent"] - 1)
    parts = [u_t - s["rate"] / R * u_xx, z["initial"][:, 0] - 0.1, z["left"][:, 0] - 1,
             z["right"][:, 0] - s["outflow"] * z["right"][:, 1]]
    scaled = [p * (b / len(p)) ** 0.5 for p, b in zip(parts, s["weights"])]
    return jnp.concatenate(scaled + [s["ridge"] ** 0.5 * w])
def optimistix_solve(phi, w):
    import optimistix as opt
    solver = opt.LevenbergMarquardt(rtol=s["tolerance"], atol=s["tolerance"])
    found = opt.least_squares(rows, solver, w, args=phi, max_steps=200, throw=False)
    return found.value, found.stats["num_steps"]
def jaxopt_solve(phi, w):
    import jaxopt
    solver = jaxopt.LevenbergMarquardt(rows, maxiter=200, tol=s["tolerance"])
    found = solver.run(w, phi)
    return found.params, found.state.iter_num
for name, solve in (("optimistix LM", optimistix_solve), ("jaxopt LM", jaxopt_solve)):
    try:
        w0 = jnp.zeros(phi["left"].shape[-1])
        one = {k: p[0] for k, p in phi.items()}
        # jaxopt's solver does not go through lax.map.
        one_by_one = lambda phi, w0: jax.lax.map(lambda one: solve(one, w0), phi)
        batched = jax.vmap(solve, in_axes=(0, None)) if name == "jaxopt LM" else one_by_one
        def loss(phi):
            w, n = batched(phi, w0)
            return (w ** 2).sum(), (w, n)
        forward, both = jax.jit(batched), jax.jit(jax.value_and_grad(loss, has_aux=True))
        w, n = jax.block_until_ready(forward(phi, w0)); jax.block_until_ready(both(phi))
        times = []
        for f in (lambda: forward(phi, w0), lambda: both(phi)):
            some = []
            for _ in range(s["repetitions"]):
                t = time.process_time(); jax.block_until_ready(f())
                some.append(time.process_time() - t)
            times.append(1e3 * sorted(some)[len(some) // 2])
        cost = sum(float(0.5 * (rows(w[i], {k: p[i] for k, p in phi.items()}) ** 2).sum())
                   for i in range(len(w)))
        print(json.dumps({"method": name, "forward": times[0], "both": times[1],
                          "iterations": float(jnp.mean(n)), "cost": cost}))
    except Exception as error:
        note = f"skipped: {type(error).__name__}: {error}"[:80]
        print(json.dumps({"method": name, "note": note}))
"""


def _jax(features: Mapping[str, Tensor], kernel: float, repetitions: int) -> list[dict[str, Any]]:
    """What optimistix and jaxopt take, in an interpreter of their own."""
    names = ("optimistix LM", "jaxopt LM")
    python = os.environ.get("PHYSIM_PEERS")
    if not python:
        why = "skipped: PHYSIM_PEERS names no Python with JAX"
        return [{"method": name, "note": why} for name in names]
    settings = {
        "smoothing": SYSTEM.smoothing,
        "sorption": SYSTEM.sorption,
        "exponent": SYSTEM.exponent,
        "rate": SYSTEM.diffusion * SYSTEM.duration,
        "outflow": SYSTEM.outflow * SYSTEM.diffusion,
        "weights": [1.0] * 4,
        "ridge": RIDGE,
        "tolerance": TOLERANCE,
        "repetitions": repetitions,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        np.savez(path, **{name: phi.detach().numpy() for name, phi in features.items()})
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        }
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [python, "-c", _PEER, str(path), json.dumps(settings)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows:
        why = f"skipped: {(done.stderr.strip().splitlines() or ['no output'])[-1][:60]}"
        return [{"method": name, "note": why} for name in names]
    for row in rows:
        if "both" in row:
            row["ratio"] = row["both"] / kernel
    return rows


def _gradient_errors(seed: int) -> tuple[float, float]:
    """Exact gradient, and that of Gauss and Newton, against central differences."""
    features, data = build(128, 8, 1, seed)
    generator = torch.Generator().manual_seed(seed)
    phi = features["equation"]
    direction = torch.randn(phi.shape, generator=generator, dtype=torch.float64)
    direction = direction * phi.detach().abs().mean()
    solver = LevenbergMarquardt(tolerance=1e-10)

    def value(h: float) -> Tensor:
        moved = {**features, "equation": (phi + h * direction).detach()}
        made = problem(CompiledProblem, moved, data)
        return implicit_least_squares(made, solver=solver).value.detach().square().sum()

    h = 1e-4
    near, far = (float(value(k * h) - value(-k * h)) for k in (1, 2))
    numeric = (8 * near - far) / (12 * h)  # of fourth order
    made = problem(CompiledProblem, features, data)
    w = solver.solve(made).value
    gradient, exact = cost_gradient(made, w)
    rough = made.normal_equations(w, torch.arange(1)).matrix
    errors = []
    for matrix in (exact, rough):
        loss = newton_step(w, gradient, matrix)[0].square().sum()
        (slope,) = torch.autograd.grad(loss, phi, retain_graph=True)
        errors.append(abs(float((slope * direction).sum()) - numeric) / abs(numeric))
    return errors[0], errors[1]
