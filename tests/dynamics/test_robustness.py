"""Random full-range control on gymnasium's locomotion models: nothing breaks, nothing sinks in.

The bounds are the product's own promise: no item fails after the ladder, no shape overlaps by more
than a micrometre, and half steps stay rare.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
import torch

import physim

ASSETS = Path(gymnasium.__path__[0]) / "envs" / "mujoco" / "assets"
MODELS = ("hopper", "walker2d", "half_cheetah", "ant", "humanoid")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("timestep", "most_half_steps"), [(0.01, 1e-3), (0.05, 1e-2)])
def test_random_control_neither_fails_nor_penetrates(
    name: str, timestep: float, most_half_steps: float
) -> None:
    model = physim.load_model(ASSETS / f"{name}.xml")
    sim = physim.Simulator(model, timestep=timestep)
    seeds, steps, hold = 8, round(5.0 / timestep), max(1, round(0.05 / timestep))
    p = sim.parameters()
    low, high = p["control_lower"], p["control_upper"]
    controls = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(1000 + seed)
        drawn = torch.rand(-(-steps // hold), model.nu, generator=generator, dtype=torch.float64)
        controls.append((low + (high - low) * drawn).repeat_interleave(hold, 0)[:steps])
    start = sim.initial_state(batch=seeds)
    with torch.no_grad():
        motion = sim.rollout(start, torch.stack(controls, dim=1), on_failure="mask")
    summary = motion.summary()
    print(name, timestep, f"smoothing {sim.smoothing:g}", summary)
    assert summary["failures"] == 0
    assert summary["non_finite"] == 0
    assert summary["min_gap"] >= -1e-6
    assert summary["half_step_share"] <= most_half_steps
