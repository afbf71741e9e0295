"""Three trainings and the landscape around their solutions: two formulations and a policy.

The same convection problem is trained as a field u(x, t) and along its characteristics; a small
policy swings a pendulum up. Each gets one picture and one file of numbers: Hessian spectrum,
largest stable learning rates, barriers to a second solution, and for the first two the intrinsic
dimension. The last lines compare conditioning at three speeds of convection.

Run ``python examples/landscape_report.py --help``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

import physim
from physim.learn.landscape import (
    IntrinsicDimension,
    LandscapeReport,
    align,
    intrinsic_dimension,
    landscape_report,
    random_projection,
)
from solvers.curvature import Objective, extreme_eigenpairs, gauss_newton
from solvers.optim import DiffGrad, minimize_gns

SPEED = 10.0
PERIOD = 2 * math.pi


def network(inputs: int, outputs: int, seed: int, width: int = 16) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, outputs),
    ).double()  # fmt: skip


def samples(count: int = 40) -> Tensor:
    """Places and times (x, t) in a period and a time of one."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return draw * torch.tensor([PERIOD, 1.0], dtype=torch.float64)


def field(net: nn.Module, speed: float = SPEED) -> Objective:
    """u_t + c u_x = 0, periodic, u(x, 0) = sin x."""
    points = samples()
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def residual(u: Callable[[Tensor], Tensor]) -> Tensor:
        def at(z: Tensor) -> Tensor:
            slope = jacrev(lambda p: u(p)[0])(z)
            initial = u(z * first)[0] - torch.sin(z[0])
            left = z * (1 - first)
            wrap = u(left)[0] - u(left + PERIOD * first)[0]
            return torch.stack([slope[1] + speed * slope[0], 10 * initial, 10 * wrap])

        return vmap(at)(points) / len(points) ** 0.5

    return Objective.of_module(net, residual=residual)


def characteristics(net: nn.Module, speed: float = SPEED) -> Objective:
    """dx/dt = c from every start s, value carried unchanged; the network gives (x - s, u)."""
    points = samples()
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def residual(flow: Callable[[Tensor], Tensor]) -> Tensor:
        def at(z: Tensor) -> Tensor:
            slope = jacrev(flow)(z)
            start = flow(z * first)
            carried = 10 * (start[1] - torch.sin(z[0]))
            return torch.stack([slope[0, 1] - speed, slope[1, 1], 10 * start[0], carried])

        return vmap(at)(points) / len(points) ** 0.5

    return Objective.of_module(net, residual=residual)


def swing_up(net: nn.Module, horizon: int) -> Objective:
    """Mean cost of a policy that swings a pendulum up, steps of 0.05 s from 16 starts."""
    generator = torch.Generator().manual_seed(1)
    starts = torch.randn(2, 16, generator=generator, dtype=torch.float64)

    def loss(policy: Callable[[Tensor], Tensor]) -> Tensor:
        angle, rate = math.pi + 0.3 * starts[0], 0.3 * starts[1]
        cost = torch.zeros((), dtype=torch.float64)
        for _ in range(horizon):
            seen = torch.stack([torch.cos(angle), torch.sin(angle), rate], 1)
            torque = 12 * torch.tanh(policy(seen)[:, 0])
            rate = rate + 0.05 * (9.81 * torch.sin(angle) + torque - 0.1 * rate)
            angle = angle + 0.05 * rate
            cost = cost + (1 - torch.cos(angle) + 0.01 * rate**2 + 1e-3 * torque**2).mean()
        return cost / horizon

    return Objective.of_module(net, loss=loss)


def solve(objective: Objective, steps: int) -> Tensor:
    """Damped Gauss-Newton steps from the objective's start."""
    return minimize_gns(objective, iterations=steps, on_failure="mask").value


def improve(objective: Objective, steps: int) -> Tensor:
    """DiffGrad on a loss without residuals."""
    theta = objective.start.clone().requires_grad_()
    optimizer = DiffGrad([theta], lr=2e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(theta).backward()
        optimizer.step()
    return theta.detach()


def subspaces(objective: Objective, steps: int, ladder: list[int]) -> IntrinsicDimension:
    """Which subspace lowers the loss by two decades; a goal that both formulations share."""
    first = float(objective.loss(objective.start))

    def score(dimension: int | None, seed: int) -> float:
        assert dimension is not None
        project = random_projection(objective.space.size, dimension, kind="dense", seed=seed)
        part = Objective.of_residual(
            lambda z: objective.residual(objective.start + project(z)),
            torch.zeros(dimension, dtype=torch.float64),
        )
        return math.log10(first / float(part.loss(solve(part, steps))))

    return intrinsic_dimension(score, ladder, seeds=(0, 1), baseline=2.0, share=1.0)


def module_of(net: nn.Sequential, objective: Objective, theta: Tensor) -> nn.Sequential:
    named = objective.space.unflatten(theta)
    net.load_state_dict({name: value.clone() for name, value in named.items()})
    return net


def examine(
    name: str,
    build: Callable[[nn.Module], Objective],
    nets: tuple[nn.Sequential, nn.Sequential],
    train: Callable[[Objective], Tensor],
    sweep: Callable[[Objective], IntrinsicDimension] | None = None,
) -> LandscapeReport:
    """Train twice, align the second solution with the first, look around the first."""
    objectives = [build(net) for net in nets]
    ends = [train(objective) for objective in objectives]
    for net, objective, end in zip(nets, objectives, ends, strict=True):
        module_of(net, objective, end)
    aligned = align(nets[0], nets[1])
    moved = objectives[0].space.flatten({k: p.detach() for k, p in aligned.named_parameters()})
    return landscape_report(
        name,
        objectives[0],
        ends[0],
        others={"second run": ends[1], "second run, aligned": moved},
        intrinsic=None if sweep is None else sweep(objectives[0]),
    )


def conditioning(speed: float) -> tuple[float, float]:
    """Largest Gauss-Newton eigenvalue of both formulations before training."""
    both = field(network(2, 1, 0), speed), characteristics(network(2, 2, 0), speed)
    first, second = (float(extreme_eigenpairs(gauss_newton(o)).values[0]) for o in both)
    return first, second


def main(steps: int = 50, output: Path = Path("out")) -> dict[str, Any]:
    """Run all three.

    Args:
        steps: Gauss-Newton steps of a training; the policy takes four times as many steps.
        output: Folder for pictures and numbers.

    Returns:
        Reports by name, and the eigenvalues by speed under ``"conditioning"``.
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    ladder = [10, 25, 50, 100] if steps >= 30 else [5, 10]
    reports: dict[str, Any] = {
        "field": examine(
            "field", field, (network(2, 1, 0), network(2, 1, 1)), lambda o: solve(o, steps),
            lambda o: subspaces(o, steps // 2, ladder),
        ),
        "characteristics": examine(
            "characteristics", characteristics, (network(2, 2, 0), network(2, 2, 1)),
            lambda o: solve(o, steps), lambda o: subspaces(o, steps // 2, ladder),
        ),
        "policy": examine(
            "policy", lambda net: swing_up(net, 30 if steps >= 30 else 8),
            (network(3, 1, 0), network(3, 1, 1)), lambda o: improve(o, 4 * steps),
        ),
    }  # fmt: skip
    for name, report in reports.items():
        print(report)
        print(f"  {report.save(output / f'landscape_{name}.json')}")
        try:
            print(f"  {report.plot(output / f'landscape_{name}.png')}\n")
        except physim.MissingExtraError as error:
            print(f"  no picture: {error}\n")
    print("largest Gauss-Newton eigenvalue before training, field and characteristics")
    table = {speed: conditioning(speed) for speed in (1.0, 10.0, 50.0)}
    for speed, (first, second) in table.items():
        print(f"  speed {speed:4.0f}: {first:9.1f} {second:9.1f}")
    print(f"{time.perf_counter() - began:.0f} s")
    return {**reports, "conditioning": table}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.steps, options.output)
