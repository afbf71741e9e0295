"""A first robot: drop it, let it stand, then teach it to run by gradients through contact.

The robot is gymnasium's half cheetah, a real model file: nine degrees of freedom, six motors,
springs in its joints, hard contact with the floor. Its controls are optimised by plain gradient
ascent on the distance that it covers; random search with twice the simulated steps competes.

Run ``make demo``, or ``python examples/first_robot.py --help``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

import physim
from physim.view import film, picture

TIMESTEP = 0.02  # [s]
HOLD = 4  # steps for which a control is held
GOAL = 3.0  # distance to cover [m], from standing
STARTS = 8  # independent optimisations, one per item of the batch


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the demo measured."""

    overlap: float  # deepest overlap of any two shapes while it fell and stood [m]
    creep: float  # how far the standing robot moved in its last second [m]
    gradient: float  # farthest run found by gradients [m]
    search: float  # farthest run found by random search [m]
    goal: float  # distance asked for [m]

    @property
    def reached(self) -> bool:
        """Whether gradients reach the goal and random search does not come close to them."""
        return self.gradient >= self.goal and self.gradient > self.search


def robot() -> physim.Model:
    """The half cheetah from gymnasium's own folder."""
    spec = find_spec("gymnasium")
    if spec is None or spec.origin is None:
        raise SystemExit("this demo needs gymnasium's model files; run: pip install gymnasium")
    folder = Path(spec.origin).parent / "envs" / "mujoco" / "assets"
    return physim.load_model(folder / "half_cheetah.xml")


def drop_and_stand(sim: physim.Simulator) -> tuple[physim.State, float, float]:
    """Drop the robot from 0.3 m and wait until it stands; state, overlap [m] and creep [m]."""
    q = sim.model.initial_q.clone()
    q[sim.model.joint("rootz").q_index] += 0.3
    second = round(1.0 / TIMESTEP)
    with torch.no_grad():
        motion = sim.rollout(sim.initial_state(q=q), steps=6 * second)
    state = motion.state(-1)
    overlap = max(0.0, -float(motion.report.counts["min_gap"].min()))
    creep = float((motion.q[-1, 0, :2] - motion.q[-1 - second, 0, :2]).norm())
    return state, overlap, creep


def distance(motion: physim.Trajectory) -> Tensor:
    """How far each item ran [m]: the robot's first coordinate is its place along the track."""
    return motion.q[-1, :, 0] - motion.q[0, :, 0]


def ascend(
    sim: physim.Simulator, stand: physim.State, *, steps: int, iterations: int, seed: int
) -> tuple[float, Tensor]:
    """Gradient ascent on the distance; the farthest run [m] and its controls (steps, nu)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (-(-steps // HOLD), STARTS, sim.model.nu)
    raw = (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.1)
    start, best, best_controls = stand.repeat(STARTS), -torch.inf, torch.empty(0)
    for iteration in range(iterations):
        controls = torch.tanh(raw).repeat_interleave(HOLD, dim=0)[:steps]
        run = distance(sim.rollout(start, controls, on_failure="mask"))
        item = int(run.argmax())
        if float(run[item].detach()) > best:
            best, best_controls = float(run[item].detach()), controls[:, item].detach().clone()
        optimizer.zero_grad()
        (-run.sum()).backward()
        # Gradients through contact differ by orders of magnitude between items and moments: each
        # item takes the direction of its gradient, and Adam chooses the length.
        raw.grad /= raw.grad.norm(dim=(0, 2), keepdim=True).clamp(min=1e-9)
        optimizer.step()
        if iteration % 10 == 9:
            print(f"  iteration {iteration + 1:3d}: farthest run so far {best:.2f} m")
    return best, best_controls


def search(
    sim: physim.Simulator, stand: physim.State, *, steps: int, trials: int, seed: int
) -> float:
    """Random search over controls that are held as long; the farthest run [m]."""
    generator = torch.Generator().manual_seed(seed)
    best, size = -torch.inf, 64
    with torch.no_grad():
        for first in range(0, trials, size):
            count = min(size, trials - first)
            shape = (-(-steps // HOLD), count, sim.model.nu)
            draws = 2.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.0
            controls = draws.repeat_interleave(HOLD, dim=0)[:steps]
            motion = sim.rollout(stand.repeat(count), controls, on_failure="mask")
            best = max(best, float(distance(motion).max()))
    return best


def main(
    steps: int = 80,
    output: Path = Path("out"),
    *,
    iterations: int = 40,
    seed: int = 0,
    goal: float = GOAL,
) -> Result:
    """Run the demo.

    Args:
        steps: Length of a run in steps of 0.02 s.
        output: Folder for the picture and the film.
        iterations: Gradient steps.
        seed: Seed of the first controls and of random search.
        goal: Distance to cover [m].

    Returns:
        What was measured.
    """
    began = time.perf_counter()
    model = robot()
    sim = physim.Simulator(model, timestep=TIMESTEP, threads=2)
    print(f"{sim}\n\n1. Drop from 0.3 m and stand, hard contact, no control")
    stand, overlap, creep = drop_and_stand(sim)
    print(f"  deepest overlap {overlap:.1e} m, creep in the last second {creep:.1e} m")

    print(f"\n2. Run {goal:g} m in {steps * TIMESTEP:.1f} s: gradients through contact")
    best, controls = ascend(sim, stand, steps=steps, iterations=iterations, seed=seed)
    # A gradient costs a backward pass besides, so random search may take two steps for one.
    trials = 2 * iterations * STARTS
    found = search(sim, stand, steps=steps, trials=trials, seed=seed)
    print(f"  gradients      {best:6.2f} m  ({iterations * STARTS * steps} steps forward and back)")
    print(f"  random search  {found:6.2f} m  ({trials * steps} steps)")

    output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        motion = sim.rollout(stand, controls[:, None], on_failure="mask")
    print(f"\n3. Look at it\n  {film(model, motion, output / 'first_robot.html')}")
    try:
        print(f"  {picture(model, motion, output / 'first_robot.png')}")
    except physim.MissingExtraError as error:
        warnings.warn(str(error), stacklevel=1)
    result = Result(overlap=overlap, creep=creep, gradient=best, search=found, goal=goal)
    verdict = "reached" if result.reached else "MISSED"
    print(f"\nGoal of {goal:g} m {verdict} in {time.perf_counter() - began:.0f} s.")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    sys.exit(0 if main(seed=options.seed, output=options.output).reached else 1)
