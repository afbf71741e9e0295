"""Which path from noise to data needs the fewest evaluations?

Checkerboard points, the exact velocity field of each path, Euler steps. Beside the sliced
Wasserstein distance stands the share of samples on dark squares, which sees what projections blur.
"""

from __future__ import annotations

import math

import torch
from record import Column, Result, Size
from torch import Tensor

from physim.learn.flows import (
    ConditionalOT,
    GaussianPath,
    KineticOptimalPath,
    Trigonometric,
    VariancePreserving,
    estimate_gamma,
    kinetic_energy,
    marginal_velocity,
    normalize_data,
    sample,
    sliced_wasserstein,
)

__all__ = ["run"]

TITLE = "Paths from noise to a checkerboard: energy, distance and share on dark squares"
LADDER = (2, 4, 8, 16)


def checkerboard(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Normalised points, and their raw mean and scale stacked."""
    generator = torch.Generator().manual_seed(seed)
    points = 4 * torch.rand(4 * count, 2, generator=generator, dtype=torch.float64) - 2
    points = points[points.floor().sum(1) % 2 == 0][:count]
    scale = (points - points.mean(0)).square().mean().sqrt()
    return normalize_data(points), torch.stack([points.mean(0), scale.expand(2)])


def on_dark(samples: Tensor, raw: Tensor) -> float:
    points = samples * raw[1] + raw[0]
    inside = points.abs().amax(1) <= 2
    return float((inside & (points.floor().sum(1) % 2 == 0)).double().mean())


def run(size: Size, seed: int = 0) -> Result:
    """Compare four paths."""
    count = {"tiny": 100, "small": 1500, "full": 4000}[size]
    draws = 100 if size == "tiny" else 2000
    data, raw = checkerboard(count, seed)
    other, _ = checkerboard(count, seed + 1)
    theta = torch.linspace(0, math.pi / 2, 81, dtype=torch.float64)
    gamma = estimate_gamma(data, theta, draws=draws)
    paths: dict[str, GaussianPath] = {
        "kinetic optimal": KineticOptimalPath(theta, gamma),
        "trigonometric": Trigonometric(),
        "conditional OT": ConditionalOT(),
        "variance preserving": VariancePreserving(),
    }
    generator = torch.Generator().manual_seed(seed + 2)
    noise = torch.randn(4 * count, 2, generator=generator, dtype=torch.float64)
    rows = []
    for name, path in paths.items():
        field = marginal_velocity(path, data)
        row: dict[str, float | str] = {"path": name, "energy": kinetic_energy(path, theta, gamma)}
        for steps in LADDER:
            ends = sample(field, noise, steps=steps).value
            row[f"distance_{steps}"] = sliced_wasserstein(ends, data)
            row[f"dark_{steps}"] = on_dark(ends, raw)
        rows.append(row)
    floor = sliced_wasserstein(data, other)
    best = {
        kind: [pick(rows, key=lambda r, s=s, k=kind: r[f"{k}_{s}"])["path"] for s in LADDER]
        for kind, pick in (("distance", min), ("dark", max))
    }
    return Result(
        title=TITLE,
        columns=(
            Column("path", "path"),
            Column("energy", "energy", ".3f"),
            *(Column(f"distance_{s}", f"distance, {s}", ".3f") for s in LADDER),
            *(Column(f"dark_{s}", f"dark, {s}", ".2f") for s in LADDER),
        ),
        rows=rows,
        settings={"points": count, "samples": 4 * count, "floor": floor},
        verdict=[
            f"Two draws of the data are {floor:.3f} apart.",
            f"Least distance at {LADDER} evaluations: {', '.join(map(str, best['distance']))}.",
            f"Most samples on dark squares: {', '.join(map(str, best['dark']))}.",
        ],
    )
