"""Smoke past obstacles in two and three axes: a picture and a film of each, then the inverse.

The last part hides a disc in a rising wind and finds it again from the velocity field alone, by
gradients through all steps and all pressure solves, from several random starts.

Run ``python examples/smoke.py --help``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from physim.fluid import (
    Box,
    Obstacle,
    Smoke,
    SmokeState,
    Sphere,
    StaggeredGrid,
    film,
    picture,
    render,
)
from solvers.core import open_progress

RADIUS = 4.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the example measured.

    Attributes:
        divergence: Largest divergence of any frame, times the timestep.
        errors: Distance of the found centre from the true one for each start [cells].
        seconds: Time of the films and of the search [s].
    """

    divergence: float
    errors: tuple[float, ...]
    seconds: tuple[float, float]

    @property
    def is_found(self) -> bool:
        """Whether every start ended within half a cell."""
        return max(self.errors) < 0.5


def point(*coordinates: float) -> Tensor:
    return torch.tensor(coordinates, dtype=torch.float64)


def plume(grid: StaggeredGrid, middle: Tensor, radius: float, rate: float) -> Tensor:
    """Smoke that appears in a ball."""
    away = torch.linalg.vector_norm(grid.centers() - middle, dim=-1)
    return torch.where(away < radius, rate, 0.0)


def shoot(
    name: str,
    scene: Smoke,
    obstacles: list[Obstacle],
    output: Path,
    *,
    frames: int,
    steps: int,
    thickness: float,
    scale: int,
) -> float:
    """Make the film and its last picture.

    Args:
        name: Of the files.
        scene: The flow.
        obstacles: Bodies to draw.
        output: Folder.
        frames: Length of the film.
        steps: Steps from frame to frame.
        thickness: How dense the smoke looks.
        scale: Pixels a cell.

    Returns:
        Largest divergence, times the timestep.
    """
    state, images, largest = scene.initial_state(), [], 0.0
    with open_progress(frames, description=name) as progress, torch.no_grad():
        for frame in range(frames):
            for _ in range(steps):
                state, report = scene.step(state)
            rest = float(scene.grid.divergence(state.velocity).abs().max()) * scene.timestep
            largest = max(largest, rest)
            images.append(
                render(scene.grid, state.smoke, obstacles, thickness=thickness, scale=scale)
            )
            progress.update(frame + 1, iterations=float(report.iterations))
    print(film(images, output / f"{name}_film.png"))
    print(picture(images[-1], output / f"{name}.png"))
    return largest


def shoot_both(output: Path, frames: int, size: int) -> float:
    """A disc in a plane and a ball under a plate in space."""
    plane = StaggeredGrid((size * 2, size * 3))
    width = float(2 * size)
    discs: list[Obstacle] = [
        Sphere(point(0.47 * width, 0.62 * width), 0.14 * width),
        Box(point(0.78 * width, 1.05 * width), point(0.12 * width, 0.03 * width)),
    ]
    source = plume(plane, point(0.5 * width, 0.08 * width), 0.07 * width, 0.5)
    scene = Smoke(plane, timestep=1.0, source=source, obstacles=discs, buoyancy=0.1)
    first = shoot("smoke_2d", scene, discs, output, frames=frames, steps=2, thickness=1.2, scale=4)

    side = float(size)
    space = StaggeredGrid((size, size, size * 3 // 2))
    balls: list[Obstacle] = [Sphere(point(0.47 * side, 0.53 * side, 0.55 * side), 0.17 * side)]
    source = plume(space, point(0.5 * side, 0.5 * side, 0.08 * side), 0.11 * side, 0.5)
    scene = Smoke(space, timestep=1.0, source=source, obstacles=balls, buoyancy=0.1)
    second = shoot("smoke_3d", scene, balls, output, frames=frames, steps=1, thickness=3.0, scale=8)
    return max(first, second)


def find_disc(starts: int, steps: int, seed: int) -> list[float]:
    """Find a hidden disc from the flow around it.

    Args:
        starts: Number of random starts.
        steps: Steps of the flow.
        seed: Of the true place and of the starts.

    Returns:
        Distance from the true centre for each start [cells].
    """
    grid = StaggeredGrid((24, 36))
    still = torch.zeros(grid.shape, dtype=torch.float64)
    wind = SmokeState(
        velocity=(still.new_zeros(grid.face_shape(0)), still.new_ones(grid.face_shape(1))),
        smoke=still,
        pressure=still,
    )
    generator = torch.Generator().manual_seed(seed)
    low, high = point(7.0, 8.0), point(17.0, 28.0)

    def draw() -> Tensor:
        return low + (high - low) * torch.rand(2, generator=generator, dtype=torch.float64)

    def flow(center: Tensor) -> Tensor:
        scene = Smoke(
            grid, timestep=1.0, obstacles=[Sphere(center, RADIUS)], scheme="semi-lagrangian",
            sides=[(False, False), (True, True)],
        )  # fmt: skip
        states = scene.run(wind, steps)
        return torch.cat([u.flatten() for state in states[1:] for u in state.velocity])

    true = draw()
    with torch.no_grad():
        seen = flow(true)
    errors = []
    for number in range(starts):
        start = draw()
        found = descend(lambda c: (flow(c) - seen).square().sum() / seen.square().sum(), start)
        error = float((found - true).norm())
        errors.append(error)
        print(f"start {number}: {float((start - true).norm()):5.2f} cells away, ends {error:.4f}")
    return errors


def descend(loss: Callable[[Tensor], Tensor], start: Tensor, least: float = 0.02) -> Tensor:
    """Steps of a fixed length down the gradient, halved where the loss would grow."""

    def look(place: Tensor) -> tuple[float, Tensor]:
        place = place.clone().requires_grad_()
        value = loss(place)
        return float(value.detach()), torch.autograd.grad(value, place)[0]

    center, step = start, 2.0
    value, slope = look(center)
    while step > least:
        trial = center - step * slope / slope.norm()
        new, new_slope = look(trial)
        if new < value:
            center, value, slope = trial, new, new_slope
        else:
            step = 0.5 * step
    return center


def main(
    frames: int = 70, size: int = 40, starts: int = 5, steps: int = 6, seed: int = 0,
    output: Path = Path("out"),
) -> Result:  # fmt: skip
    """Make the films, then find the hidden disc.

    Args:
        frames: Length of each film.
        size: Cells along the shortest axis in space; half of that in the plane.
        starts: Random starts of the search.
        steps: Steps of the flow that is searched in.
        seed: Of what is random.
        output: Folder for pictures and films.

    Returns:
        What was measured.
    """
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    divergence = shoot_both(output, frames, size)
    middle = time.perf_counter()
    errors = find_disc(starts, steps, seed)
    ended = time.perf_counter()
    result = Result(
        divergence=divergence,
        errors=tuple(errors),
        seconds=(middle - began, ended - middle),
    )
    print(f"films {result.seconds[0]:.0f} s, search {result.seconds[1]:.0f} s")
    print(f"largest divergence of a frame: {divergence:.1e} of a cell in a step")
    print(f"disc {'found' if result.is_found else 'missed'}: {max(errors):.4f} cells at worst")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=70)
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = main(
        options.frames, options.size, options.starts, seed=options.seed, output=options.output
    )
    sys.exit(0 if made.is_found else 1)
