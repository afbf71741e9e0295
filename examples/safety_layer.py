"""Can a policy learn to reach a goal without ever touching what lies between?

The network proposes a force; a layer moves it to the nearest force that keeps a barrier condition
and the limits of the motors (a quadratic program); the simulator moves the body. One backward pass
goes through simulator, program and network, so the policy learns around the obstacle, and every
trajectory is safe from the first iteration on.

Run ``python examples/safety_layer.py --help``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import physim
from constraints import QuadraticProgram
from solvers.figures import open_figure, save_figure

CART = """<mujoco><option gravity="0 0 0"/><worldbody><body>
  <joint name="x" type="slide" axis="1 0 0"/><joint name="y" type="slide" axis="0 1 0"/>
  <geom type="sphere" size="0.05" mass="1" contype="0" conaffinity="0"/></body></worldbody>
  <actuator><motor joint="x"/><motor joint="y"/></actuator></mujoco>"""
CENTRE, RADIUS, MARGIN = (0.0, 0.0), 0.5, 0.02
GOAL = (1.2, 0.1)
FORCE, RATE = 20.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the example measured."""

    clearance: float  # smallest distance to the obstacle over the whole training [m]
    before: float  # mean final distance to the goal [m]
    after: float
    unfiltered: float  # clearance of the trained network without the layer


class SafePolicy(nn.Module):
    """A network whose force passes a quadratic program.

    With ``d`` the squared distance to the obstacle, ``d'' + 2 k d' + k^2 d >= 0`` keeps d positive;
    it is linear in the force.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)).double()
        self.layer = QuadraticProgram()
        self.is_filtered = True

    def forward(self, state: physim.State, step: int) -> Tensor:
        """Force at a state [N]."""
        p, v = state.q, state.v
        to_goal = torch.tensor(GOAL, dtype=p.dtype) - p
        wish = 4.0 * to_goal - 3.0 * v + self.network(torch.cat([p, v], 1))
        return self.nearest_safe(wish, p, v) if self.is_filtered else wish

    def nearest_safe(self, wish: Tensor, p: Tensor, v: Tensor) -> Tensor:
        """The force nearest to a wish among those that keep the barrier and the limits."""
        away = p - torch.tensor(CENTRE, dtype=p.dtype)
        gap = away.square().sum(1) - (RADIUS + MARGIN) ** 2
        rate = 2.0 * (away * v).sum(1)
        barrier = 2.0 * v.square().sum(1) + 2.0 * RATE * rate + RATE**2 * gap
        identity = torch.eye(2, dtype=p.dtype)
        limits = torch.cat([identity, -identity]).expand(len(p), 4, 2)
        G = torch.cat([-2.0 * away[:, None], limits], 1)
        h = torch.cat([barrier[:, None], torch.full((len(p), 4), FORCE, dtype=p.dtype)], 1)
        force, _ = self.layer(Q=identity, q=-wish, G=G, h=h)
        return force


def clearance(path: Tensor) -> float:
    """Smallest distance of a trajectory (T, B, 2) to the obstacle [m]."""
    centre = torch.tensor(CENTRE, dtype=path.dtype)
    return float((path - centre).norm(dim=-1).min()) - RADIUS


def main(
    iterations: int = 40,
    batch: int = 16,
    steps: int = 80,
    seed: int = 0,
    output: Path = Path("out"),
) -> Result:
    """Train the policy.

    Args:
        iterations: Steps of the optimizer.
        batch: Trajectories.
        steps: Steps of the simulator in each.
        seed: Seed of the network and of the starts.
        output: Folder for the picture.

    Returns:
        What was measured.
    """
    began = time.perf_counter()
    sim = physim.Simulator(physim.load_model(CART), timestep=0.03)
    policy = SafePolicy(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-2)
    across = torch.linspace(-0.4, 0.4, batch, dtype=torch.float64)
    start = sim.initial_state(q=torch.stack([torch.full_like(across, -1.2), across], 1))
    goal = torch.tensor(GOAL, dtype=torch.float64)
    closest, misses, paths = float("inf"), [], []
    for _ in range(iterations):
        motion = sim.rollout(start, policy, steps=steps)
        miss = (motion.q[-1] - goal).norm(dim=1)
        away = (motion.q[1:] - goal).square().sum(-1).mean()
        loss = away + miss.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        closest = min(closest, clearance(motion.q.detach()))
        misses.append(float(miss.mean().detach()))
        paths.append(motion.q.detach())
    policy.is_filtered = False
    with torch.no_grad():
        bare = sim.rollout(start, policy, steps=steps).q
    result = Result(
        clearance=closest, before=misses[0], after=misses[-1], unfiltered=clearance(bare)
    )
    print(f"mean distance to the goal {result.before:.3f} m before, {result.after:.3f} m after")
    print(f"smallest clearance over {iterations} iterations {100 * closest:.2f} cm")
    print(f"the same network without the layer: {100 * result.unfiltered:.2f} cm")
    output.mkdir(parents=True, exist_ok=True)
    draw(paths[0], paths[-1], bare, output / "safety_layer.png")
    print(f"{output / 'safety_layer.png'}  ({time.perf_counter() - began:.0f} s)")
    return result


def draw(before: Tensor, after: Tensor, bare: Tensor, path: Path) -> None:
    """Trajectories before and after training, and without the layer."""
    figure, axes = open_figure(columns=3, width=11.0, heights=[2.6])
    reach = torch.cat([before, after, bare]).reshape(-1, before.shape[-1])
    low, high = reach.amin(0) - 0.1, reach.amax(0) + 0.1
    angle = torch.linspace(0, 2 * torch.pi, 100)
    for ax, title, motion in zip(
        axes, ("before", "after", "without the layer"), (before, after, bare), strict=True
    ):
        ax.fill(RADIUS * angle.cos(), RADIUS * angle.sin(), color="0.8", label="obstacle")
        ax.plot(motion[..., 0].numpy(), motion[..., 1].numpy(), linewidth=0.8)
        ax.plot(*GOAL, "k*", label="goal")
        ax.set_aspect("equal")
        ax.set_xlim(float(low[0]), float(high[0]))
        ax.set_ylim(float(low[1]), float(high[1]))
        ax.set_title(title)
        ax.set_xlabel("x [m]")
    axes[0].set_ylabel("y [m]")
    axes[0].legend(frameon=False, fontsize="small", loc="upper left")
    save_figure(figure, path)


if __name__ == "__main__":
    # Work this small loses time to threads.
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    main(**vars(parser.parse_args()))
