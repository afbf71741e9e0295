"""Does a model that conserves mass exactly forecast better than one that is asked to?

Heat spreads in a ring of 64 cells. Three convolutions learn one step from noisy snapshots: free,
with a penalty on the change of mass, and with a layer that restores the mass of the last state
(`constraints.Integral`). Each then runs freely for 60 steps.

Run ``python examples/conservation_layer.py --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from constraints import Integral
from solvers.figures import draw_curves, open_figure, save_figure

CELLS = 64
ARMS = ("free", "penalty", "layer")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the example measured, by name of the arm."""

    drift: dict[str, float]  # largest relative change of mass over the forecast
    error: dict[str, float]  # relative error of the last state


def heat(state: Tensor, steps: int = 10, number: float = 0.2) -> Tensor:
    """Explicit steps of the heat equation in a ring, which conserve the sum."""
    for _ in range(steps):
        state = state + number * (state.roll(1, -1) - 2 * state + state.roll(-1, -1))
    return state


def bumps(count: int, generator: torch.Generator) -> Tensor:
    """Positive profiles: a level and two Gaussian bumps."""
    x = torch.arange(CELLS, dtype=torch.float64) / CELLS
    total = 0.5 + torch.rand(count, 1, generator=generator, dtype=torch.float64)
    for _ in range(2):
        centre, height = (
            torch.rand(count, 1, generator=generator, dtype=torch.float64) for _ in "ch"
        )
        away = (x - centre + 0.5) % 1.0 - 0.5
        total = total + height * torch.exp(-((away / 0.08) ** 2))
    return total


class Step(nn.Module):
    """One step: the state and a learned convolution of it."""

    def __init__(self, arm: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.correct = nn.Conv1d(1, 1, 17, padding=8, padding_mode="circular").double()
        # Waves that the data do not hold stay as they are.
        nn.init.zeros_(self.correct.weight)
        self.mass = Integral(1.0 / CELLS) if arm == "layer" else None

    def forward(self, state: Tensor) -> Tensor:
        """The next state."""
        after = state + self.correct(state[:, None])[:, 0]
        return after if self.mass is None else self.mass(after, state.mean(-1))


def train(arm: str, before: Tensor, after: Tensor, iterations: int, seed: int) -> Step:
    model = Step(arm, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(iterations):
        said = model(before)
        loss = (said - after).square().mean()
        if arm == "penalty":
            loss = loss + (said.mean(-1) - before.mean(-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def forecast(step: Callable[[Tensor], Tensor], state: Tensor, steps: int) -> Tensor:
    states = [state]
    with torch.no_grad():
        for _ in range(steps):
            states.append(step(states[-1]))
    return torch.stack(states)


def main(
    iterations: int = 200, steps: int = 60, seed: int = 0, output: Path = Path("out")
) -> Result:
    """Train and compare the three arms.

    Args:
        iterations: Steps of the optimizer.
        steps: Length of the forecast.
        seed: Seed of data and models.
        output: Folder for the picture.

    Returns:
        What was measured.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    before = bumps(128, generator)
    noise = 0.01 * torch.randn(before.shape, generator=generator, dtype=torch.float64)
    after = heat(before) + noise
    start = bumps(16, generator)
    truth = forecast(heat, start, steps)
    drift, error, masses = {}, {}, {}
    for arm in ARMS:
        said = forecast(train(arm, before, after, iterations, seed), start, steps)
        mass = said.mean(-1) / truth.mean(-1) - 1.0
        drift[arm] = float(mass.abs().max())
        error[arm] = float((said[-1] - truth[-1]).norm() / truth[-1].norm())
        masses[arm] = mass.abs().amax(1).clamp(min=1e-17).numpy()
        print(f"{arm:>8}: mass drifts by {drift[arm]:.1e}, last state off by {error[arm]:.2%}")
    output.mkdir(parents=True, exist_ok=True)
    figure, axes = open_figure(width=6.0, heights=[3.5])
    draw_curves(
        axes[0],
        np.arange(steps + 1.0),
        masses,
        x_label="step",
        y_label="relative change of mass",
        is_logarithmic=True,
    )
    save_figure(figure, output / "conservation_layer.png")
    print(f"{output / 'conservation_layer.png'}  ({time.perf_counter() - began:.0f} s)")
    return Result(drift=drift, error=error)


if __name__ == "__main__":
    # Work this small loses time to threads.
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    main(**vars(parser.parse_args()))
