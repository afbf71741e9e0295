"""What do large models cost: how long until the first step is ready, and what is a step then?

Every model is measured in a process of its own with an empty cache: the first call traces and
compiles the step, the first gradient its adjoint. Then the model moves from rest under random
controls. Chains of hinges on a floor show how the cost grows with the joints; an arm with a hand
holds a ball; dm_control's humanoids, where installed, are the largest files that people use.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import Column, Result, Size
from scenes import load_quietly, locomotion_file, random_controls

import physim

__all__ = ["arm_and_hand", "chain", "measure", "run"]

TITLE = "Large models: seconds until the first step and gradient are ready, then time per step"
TIMESTEP = 0.01
HOLD = 5
BATCH = 64


def chain(joints: int) -> str:
    """A free chain of capsules on a floor, joined by hinges about three axes in turn."""
    axes = ("1 0 0", "0 1 0", "0 0 1")
    opened, closed = "", ""
    for i in range(joints):
        opened += (
            f'<body pos="0.1 0 0"><joint axis="{axes[i % 3]}" range="-60 60" damping="0.002"/>'
            '<geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.02" contype="0" conaffinity="1"/>'
        )
        closed += "</body>"
    motors = "".join(f'<motor joint="j{i}" ctrlrange="-0.1 0.1"/>' for i in range(joints))
    for i in range(joints):
        opened = opened.replace("<joint axis", f'<joint name="j{i}" axis', 1)
    return (
        '<mujoco><compiler autolimits="true"/><worldbody>'
        '<geom type="plane" size="9 9 1" contype="1" conaffinity="0"/>'
        '<body pos="0 0 0.05"><freejoint/><geom size="0.03" contype="0" conaffinity="1"/>'
        f"{opened}{closed}</body></worldbody><actuator>{motors}</actuator></mujoco>"
    )


def arm_and_hand() -> str:
    """An arm of seven hinges on a gantry, a hand of five fingers with four joints each, a ball."""
    names: list[str] = []

    def joint(name: str, axis: str, extent: str, *, kind: str = "hinge") -> str:
        names.append(name)
        return (
            f'<joint name="{name}" type="{kind}" axis="{axis}" range="{extent}" damping="0.2" '
            'armature="0.005"/>'
        )

    gantry = "".join(
        joint(f"gantry_{a}", axis, "-0.3 0.3", kind="slide")
        for a, axis in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )
    fingers = ""
    for finger in range(5):
        name, y = f"finger{finger}", 0.02 * (finger - 2)
        links = joint(f"{name}_spread", "0 0 1", "-20 20")
        links += joint(f"{name}_base", "0 1 0", "-10 90")
        links += '<geom type="capsule" fromto="0 0 0 0.04 0 0" size="0.008" mass="0.02"/>'
        for part in ("middle", "tip"):
            links += f'<body pos="0.045 0 0">{joint(f"{name}_{part}", "0 1 0", "0 90")}'
            links += '<geom type="capsule" fromto="0 0 0 0.03 0 0" size="0.008" mass="0.01"/>'
        fingers += f'<body pos="0.09 {y} 0">{links}</body></body></body>'
    palm = (
        f'<body pos="0.1 0 0">{joint("wrist_turn", "1 0 0", "-80 80")}'
        f"{joint('wrist_bend', '0 1 0', '-80 80')}"
        '<geom type="box" pos="0.04 0 0" size="0.04 0.05 0.012" mass="0.3" contype="0" '
        f'conaffinity="0"/>{fingers}</body>'
    )
    arm = (
        f'<body pos="0 0 0.8">{gantry}<geom size="0.05" mass="2"/>'
        f"<body>{joint('shoulder_z', '0 0 1', '-90 90')}{joint('shoulder_y', '0 1 0', '-90 90')}"
        f"{joint('shoulder_x', '1 0 0', '-90 90')}"
        '<geom type="capsule" fromto="0.05 0 0 0.25 0 0" size="0.04" mass="1.5"/>'
        f'<body pos="0.3 0 0">{joint("elbow", "0 1 0", "-10 130")}'
        f"{joint('forearm', '1 0 0', '-90 90')}"
        '<geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.03" mass="0.8"/>'
        f"{palm}</body></body></body>"
    )
    motors = "".join(
        f'<motor joint="{name}" ctrlrange="-1 1" gear="{0.1 if "finger" in name else 5}"/>'
        for name in names
    )
    return (
        '<mujoco><compiler autolimits="true"/><worldbody><geom type="plane" size="3 3 1"/>'
        f'{arm}<body pos="0.5 0 0.05"><freejoint/><geom size="0.04" mass="0.1"/></body>'
        f"</worldbody><actuator>{motors}</actuator></mujoco>"
    )


def _source(name: str) -> str | Path | None:
    if name.startswith("chain "):
        return chain(int(name.split()[1]))
    if name == "arm and hand":
        return arm_and_hand()
    if not name.startswith("dm_control "):
        return locomotion_file(name)
    spec = importlib.util.find_spec("dm_control")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "suite" / f"{name.split()[1]}.xml"


def measure(name: str, *, seconds: float, seed: int) -> dict[str, Any]:
    """First calls, time per step and failures of one model in this process.

    Args:
        name: "chain N", "arm and hand", "dm_control F" or one of gymnasium's robots.
        seconds: How long the motion is [s].
        seed: Of the controls.
    """
    source = _source(name)
    if source is None:
        raise SystemExit(f"{name}: dm_control is not installed")
    torch.set_num_threads(1)
    model = load_quietly(source)
    sim = physim.Simulator(model, timestep=TIMESTEP)
    state = sim.initial_state(batch=BATCH, on_penetration="ignore")
    idle = torch.zeros(BATCH, model.nu, dtype=torch.float64)
    step = _timed(lambda: sim.step(state, idle, on_failure="mask"))
    control = idle.requires_grad_()

    def differentiate() -> None:
        following, _ = sim.step(state, control, on_failure="mask")
        torch.autograd.grad(following.v.sum(), control)

    gradient = _timed(differentiate)
    steps = round(seconds / TIMESTEP)
    controls = random_controls(model, steps=steps, batch=BATCH, hold=HOLD, scale=1.0, seed=seed)
    started = time.process_time()
    motion = sim.rollout(state, controls, on_failure="mask")
    per_step = 1e6 * (time.process_time() - started) / (steps * BATCH)
    report = motion.report
    return {
        "model": name,
        "nv": model.nv,
        "pairs": len(model.pairs),
        "first": step[0],
        "first_cpu": step[1],
        "gradient": gradient[0],
        "gradient_cpu": gradient[1],
        "step": per_step,
        "iterations": float(report.iterations.double().mean()),
        "rescued": float(report.counts["rescues"].double().mean()),
        "steps": steps * BATCH,
        "failures": int((~report.converged).sum()),
    }


def _timed(work: Any) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def run(size: Size, seed: int = 0) -> Result:
    """Measure each model in a process of its own."""
    names = ["chain 10"] if size == "tiny" else ["hopper", "ant", "humanoid"]
    if size != "tiny":
        names += [f"chain {n}" for n in ((10, 20, 40) if size == "small" else (10, 20, 40, 80))]
        names.append("arm and hand")
    if size == "full":
        names += ["dm_control humanoid", "dm_control humanoid_CMU"]
    seconds = {"tiny": 0.05, "small": 1.0, "full": 5.0}[size]
    rows = []
    for name in names:
        # Chains lie on dozens of contacts at once, so their steps are dear.
        shown = seconds / 5.0 if name.startswith("chain") else seconds
        if (row := _apart(name, max(shown, 0.05), seed)) is not None:
            rows.append(row)
    slowest = max(rows, key=lambda row: row["first_cpu"])
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("nv", "dof", "d"),
            Column("pairs", "pairs", "d"),
            Column("first", "first step [s]", ".1f"),
            Column("first_cpu", "CPU [s]", ".1f"),
            Column("gradient", "first gradient [s]", ".1f"),
            Column("gradient_cpu", "CPU [s]", ".1f"),
            Column("step", "step [µs]", ".3g"),
            Column("iterations", "iterations", ".1f"),
            Column("rescued", "rescues / step", ".3f"),
            Column("failures", "failures", "d"),
        ),
        rows=rows,
        settings={"timestep": TIMESTEP, "batch": BATCH, "seconds": seconds, "hold": HOLD},
        verdict=[
            f"{slowest['model']} takes longest: {slowest['first_cpu']:.0f} s of processor time for "
            f"{slowest['nv']} degrees of freedom; {sum(row['failures'] for row in rows)} of "
            f"{sum(row['steps'] for row in rows)} steps failed."
        ],
    )


def _apart(name: str, seconds: float, seed: int) -> dict[str, Any] | None:
    """`measure` in a process of its own with an empty cache; None if the model is not installed."""
    if _source(name) is None:
        return None
    with tempfile.TemporaryDirectory() as cache:
        answer = subprocess.run(
            [sys.executable, __file__, name, str(seconds), str(seed)],
            env={**os.environ, "PHYSIM_CACHE": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if answer.returncode != 0:
        raise RuntimeError(f"{name} ended with {answer.returncode}: {answer.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], seconds=float(sys.argv[2]), seed=int(sys.argv[3]))))
