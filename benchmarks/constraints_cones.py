"""How fast are layers with second-order cones, forward and backward, beside their peers?

Contacts: impulses in friction cones that minimise the kinetic energy after an impact, a Hessian for
each item, gradients to the slope. The peers minimise ``|Lx|^2/2 + q'x`` with one shared L, since a
parameter cannot enter their Hessian; their time is a lower bound.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from constraints_quadratic import PEERS, missing
from record import Column, Result, Size
from timing import alternate
from torch import Tensor

from constraints import ConeProgram

__all__ = ["run"]

TITLE = "CPU time of a layer that solves contacts with friction cones [ms], one thread"
# Contacts, items, smallest eigenvalue of the Hessian.
SIZES = {
    "tiny": ((2, 4, 0.1),),
    "small": ((4, 1, 0.1), (8, 64, 0.1), (8, 256, 1e-3)),
    "full": ((4, 1, 0.1), (4, 64, 0.1), (8, 64, 0.1), (16, 64, 0.1), (8, 1024, 1e-3)),
}
PEER_ITEMS = 256


def contacts(count: int, batch: int, curvature: float, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    n = 3 * count
    root = torch.randn(batch, n, n, generator=g, dtype=torch.float64)
    friction = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64).repeat(count)
    return {
        "Q": root @ root.mT / n + curvature * torch.eye(n, dtype=torch.float64),
        "q": torch.randn(batch, n, generator=g, dtype=torch.float64),
        "G": -torch.diag(friction),
        "h": torch.zeros(n, dtype=torch.float64),
    }


def peer(data: dict[str, Tensor], count: int, solver: str | None) -> Callable[[Tensor], Tensor]:
    import cvxpy
    from cvxpylayers.torch import CvxpyLayer

    x, q = cvxpy.Variable(3 * count), cvxpy.Parameter(3 * count)
    root = torch.linalg.cholesky(data["Q"][0]).T.numpy()
    cost = 0.5 * cvxpy.sum_squares(root @ x) + q @ x
    cones = [cvxpy.SOC(0.5 * x[3 * i], x[3 * i + 1 : 3 * i + 3]) for i in range(count)]
    layer = CvxpyLayer(cvxpy.Problem(cvxpy.Minimize(cost), cones), [q], [x], solver=solver)
    return lambda slope: layer(slope)[0]


def slope_error(layer: ConeProgram, data: dict[str, Tensor], seed: int) -> float:
    """Median over items of the gradient's error against central differences along one direction."""
    g = torch.Generator().manual_seed(seed)
    way, weight = (torch.randn(data["q"].shape, generator=g, dtype=torch.float64) for _ in "ab")
    q = data["q"].clone().requires_grad_()
    x, _ = layer(**(data | {"q": q}))
    (gradient,) = torch.autograd.grad((x * weight).sum(), q)
    ends = [layer(**(data | {"q": data["q"] + step * way}))[0] for step in (1e-5, -1e-5)]
    difference = ((ends[0] - ends[1]) / 2e-5 * weight).sum(1)
    expected = (gradient * way).sum(1)
    return ((difference - expected).abs() / (1.0 + expected.abs())).median().item()


def row_of(count: int, batch: int, curvature: float, seed: int, repetitions: int) -> dict[str, Any]:
    data = contacts(count, batch, curvature, seed)
    layer = ConeProgram(second_order=(3,) * count, on_failure="mask")
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "own": lambda slope: layer(**(data | {"q": slope}))[0]
    }
    left_out = {}
    for name, solver in (("default", None), ("moreau", "MOREAU")):
        reason = missing(PEERS[name])
        if batch > PEER_ITEMS:
            reason = "takes too long at this size"
        if reason is None:
            calls[name] = peer(data, count, solver)
        else:
            left_out[name] = reason
    many = max(1, 64 // batch)

    def work(call: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def repeat() -> None:
            for _ in range(many):
                q = data["q"].clone().requires_grad_()
                call(q).sum().backward()

        return repeat

    timings = alternate({k: work(v) for k, v in calls.items()}, repetitions=repetitions)
    _, report = layer(**data)
    row: dict[str, Any] = {
        "what": f"{count} contacts x {batch}" + (", ill-conditioned" if curvature < 0.01 else ""),
        "converged": f"{int(report.converged.sum())}/{batch}",
        "iterations": report.iterations.double().mean().item(),
        "residual": report.residual.max().item(),
        "gradient": slope_error(layer, data, seed),
        "left_out": left_out,
    }
    for name in calls:
        row[name] = 1e3 * timings.median(name) / many
    peers = [name for name in calls if name != "own"]
    if peers:
        best = min(peers, key=lambda name: row[name])
        row["gain"] = timings.ratio(best, "own")
    return row


def run(size: Size, seed: int = 0) -> Result:
    """Time all layers at a ladder of sizes."""
    warnings.filterwarnings("ignore")
    repetitions = 2 if size == "tiny" else 5
    rows = [row_of(*each, seed, repetitions) for each in SIZES[size]]
    gains = [row["gain"] for row in rows if "gain" in row]
    verdict = [f"Residual at most {max(row['residual'] for row in rows):.1g} of the data."]
    if gains:
        verdict.insert(0, f"{min(gains):.1f} to {max(gains):.1f} times faster than the best peer.")
    reasons = {k: v for row in rows for k, v in row["left_out"].items()}
    verdict += [f"{name} left out in places: {reason}." for name, reason in reasons.items()]
    return Result(
        title=TITLE,
        columns=(
            Column("what", "what"),
            Column("own", "ConeProgram"),
            Column("moreau", "Moreau"),
            Column("default", "cvxpylayers default"),
            Column("gain", "best peer / own", ".1f"),
            Column("converged", "converged"),
            Column("iterations", "steps", ".1f"),
            Column("residual", "residual", ".0e"),
            Column("gradient", "gradient error", ".0e"),
        ),
        rows=rows,
        settings={"repetitions": repetitions},
        verdict=verdict,
    )
