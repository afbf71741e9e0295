"""Which path from noise to data? Energies, samples in few steps, and one picture.

For points of a checkerboard the kinetic optimal path is computed from the data alone and put beside
straight lines, the quarter circle and the variance-preserving path. The velocity field is the exact
one, so that what differs is the path and the number of its evaluations.

Run ``python examples/kinetic_path.py --help``.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import physim
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
from solvers.figures import draw_curves, draw_points, open_figure, save_figure

LADDER = (2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the example measured, by name of the path."""

    energy: dict[str, float]
    distance: dict[str, list[float]]  # sliced Wasserstein distance at LADDER evaluations
    floor: float  # of two draws of the data


def checkerboard(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = 4 * torch.rand(4 * count, 2, generator=generator, dtype=torch.float64) - 2
    dark = points.floor().sum(1) % 2 == 0
    return normalize_data(points[dark][:count])


def main(points: int = 1500, output: Path = Path("out")) -> Result:
    """Compare the paths.

    Args:
        points: Size of the data set and number of samples.
        output: Folder for the picture.

    Returns:
        What was measured.
    """
    began = time.perf_counter()
    data, other = checkerboard(points, 0), checkerboard(points, 1)
    theta = torch.linspace(0, math.pi / 2, 81, dtype=torch.float64)
    gamma = estimate_gamma(data, theta)
    paths: dict[str, GaussianPath] = {
        "kinetic optimal": KineticOptimalPath(theta, gamma),
        "trigonometric": Trigonometric(),
        "straight lines": ConditionalOT(),
        "variance preserving": VariancePreserving(),
    }
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(points, 2, generator=generator, dtype=torch.float64)
    energy, distance, clouds = {}, {}, {}
    print(f"{'path':20s} energy  distance at {', '.join(map(str, LADDER))} evaluations")
    for name, path in paths.items():
        energy[name] = kinetic_energy(path, theta, gamma)
        field = marginal_velocity(path, data)
        ends = [sample(field, noise, steps=steps).value for steps in LADDER]
        distance[name] = [sliced_wasserstein(end, data) for end in ends]
        clouds[name] = ends[1]
        shown = "  ".join(f"{d:.3f}" for d in distance[name])
        print(f"{name:20s} {energy[name]:6.3f}  {shown}")
    floor = sliced_wasserstein(data, other)
    print(f"two draws of the data are {floor:.3f} apart")

    output.mkdir(parents=True, exist_ok=True)
    try:
        figure, axes = open_figure(width=14.0, heights=[3.2, 3.5], columns=4)
        t = torch.linspace(0, 1, 101, dtype=torch.float64)
        for axis, (name, path) in zip(axes[:4], paths.items(), strict=True):
            at = path.coefficients(t)
            curves = {"data": at.alpha.numpy(), "noise": at.sigma.numpy()}
            draw_curves(axis, t.numpy(), curves, x_label="time")
            axis.set_title(f"{name}, energy {energy[name]:.2f}", fontsize="medium")
        for axis, (name, cloud) in zip(axes[4:], clouds.items(), strict=True):
            title = f"{LADDER[1]} evaluations, distance {distance[name][1]:.3f}"
            draw_points(axis, {"samples": cloud.numpy()}, title=title)
        print(save_figure(figure, output / "kinetic_path.png"))
    except physim.MissingExtraError as error:
        print(f"no picture: {error}")
    print(f"{time.perf_counter() - began:.0f} s")
    return Result(energy=energy, distance=distance, floor=floor)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.points, options.output)
