"""Simulate and differentiate in ten lines: how fast must a box slide to stop at a mark?"""

from __future__ import annotations

import torch

import physim

BOX = """<mujoco><default><geom friction="0.5"/></default><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body pos="0 0 0.05"><freejoint/><geom type="box" size="0.2 0.2 0.05" mass="1"/></body>
</worldbody></mujoco>"""


def main(steps: int = 120, mark: float = 2.0) -> float:
    """Find the speed [m/s] at which the box comes to rest at the mark [m], by Newton's method."""
    model = physim.load_model(BOX)
    sim = physim.Simulator(model, timestep=0.01)
    push = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    for _ in range(6):
        motion = sim.rollout(sim.initial_state(v=push), steps=steps)
        end = motion.q[-1, 0, 0]
        slope = torch.autograd.grad(end, push)[0][0, 0]
        with torch.no_grad():
            push[0, 0] -= (end - mark) / slope
    speed = float(push.detach()[0, 0])
    print(f"pushed at {speed:.4f} m/s the box stops at {float(end.detach()):.6f} m")
    print(f"sqrt(2 * friction * gravity * distance) is {(2 * 0.5 * 9.81 * mark) ** 0.5:.4f} m/s")
    return speed


if __name__ == "__main__":
    main()
