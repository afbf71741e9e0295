"""Three trainings and the landscape around their solutions: two formulations and a policy.

The same convection problem is trained as a field u(x, t) and along its characteristics; a small
policy swings a pole on a cart up in the simulator. Each gets one picture and one file of numbers:
Hessian spectrum, largest stable learning rates, barriers to a second solution, and intrinsic
dimension. The last lines compare conditioning at three speeds of convection.

Run ``python examples/landscape_report.py --help``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import physim
from physim.dynamics import MLPPolicy
from physim.learn.landscape import (
    LandscapeReport,
    align,
    intrinsic_dimension,
    landscape_report,
    subspace_objective,
)
from solvers.curvature import Objective, ParameterSpace, extreme_eigenpairs, gauss_newton
from solvers.optim import DiffGrad, minimize_gns
from solvers.parallel import Executor, RayExecutor
from solvers.pinn import MLP, PINN, LagrangianPINN, problems

SPEED = 10.0
CART = """<mujoco><worldbody><body>
  <joint name="rail" type="slide" axis="1 0 0" damping="0.1"/>
  <geom type="box" size="0.1 0.1 0.05" mass="1" contype="0" conaffinity="0"/>
  <body><joint name="hinge" axis="0 1 0" damping="0.05"/>
    <geom type="capsule" fromto="0 0 0 0 0 1" size="0.03" mass="0.2" contype="0" conaffinity="0"/>
  </body></body></worldbody><actuator><motor joint="rail" gear="12"/></actuator></mujoco>"""

Network = nn.Sequential
Training = tuple[Objective, Network, Tensor]
"""What is minimised from its start, a network of the same layers, and the solution."""


def perceptron(*sizes: int) -> Network:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def pinn_of(name: str, seed: int, speed: float = SPEED) -> PINN:
    """u_t + c u_x = 0 on a period, as a field or along its characteristics."""
    problem = problems.Convection(beta=speed)
    if name == "field":
        return PINN(problem, MLP(16, 2), seed=seed, points=400, residual_scales=(1.0,))
    return LagrangianPINN(problem, MLP(16, 2), seed=seed, points=400).pinn


def train_pinn(name: str, seed: int, steps: int) -> Training:
    pinn = pinn_of(name, seed)
    result = pinn.fit(steps=10 * steps, progress=False)
    net = perceptron(*pinn.collocation.program.layers.sizes)
    return Objective.of_source(pinn.collocation, pinn.initial()), net, result.network.theta.detach()


def train_policy(name: str, seed: int, steps: int) -> Training:
    """Mean cost of a policy from 16 starts near the bottom, by DiffGrad through the rollout."""
    sim = physim.Simulator(physim.load_model(CART), timestep=0.04)
    generator = torch.Generator().manual_seed(1)
    places, rates = 0.3 * torch.randn(2, 16, 2, generator=generator, dtype=torch.float64)
    hanging = torch.tensor([0.0, math.pi], dtype=torch.float64)
    start = sim.initial_state(q=hanging + places, v=rates)
    torch.manual_seed(seed)
    net = perceptron(4, 12, 12, 1)
    space, first = ParameterSpace.of(net)

    def cost(theta: Tensor) -> Tensor:
        tensors = list(space.unflatten(theta).values())
        policy = MLPPolicy(tensors[0::2], tensors[1::2], ["tanh"] * 3)
        motion = sim.rollout(start, policy, steps=40)
        (place, angle), rate = motion.q[1:].unbind(-1), motion.v[1:, :, 1]
        return (1 - torch.cos(angle) + 0.01 * rate**2 + 0.05 * place**2).mean()

    # The compiled rollout has a gradient and no second derivatives: differences give the Hessian.
    objective = Objective(loss=cost, start=first, space=space, mode="difference")
    return objective, net, descend(objective, 8 * steps)


def descend(objective: Objective, steps: int, rate: float = 2e-2) -> Tensor:
    theta = objective.start.clone().requires_grad_()
    optimizer = DiffGrad([theta], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(theta).backward()
        optimizer.step()
    return theta.detach()


def decades(name: str, steps: int, dimension: int | None, seed: int) -> float:
    """By how many decades a PINN's loss falls in a random subspace."""
    assert dimension is not None
    pinn = pinn_of(name, 0)
    whole = Objective.of_source(pinn.collocation, pinn.initial())
    part = subspace_objective(whole, dimension, seed=seed)
    end = minimize_gns(part, iterations=steps, on_failure="mask").value
    return math.log10(float(whole.loss(whole.start)) / float(part.loss(end)))


def improvement(steps: int, dimension: int | None, seed: int) -> float:
    """By how much a policy's cost falls, in a random subspace or at will."""
    whole, _, end = train_policy("policy", 0, steps if dimension is None else 0)
    best = whole.loss(end)
    if dimension is not None:
        part = subspace_objective(whole, dimension, seed=seed)
        best = part.loss(descend(part, 8 * steps, rate=0.3))
    return float(whole.loss(whole.start) - best)


def examine(
    name: str,
    train: Callable[[str, int, int], Training],
    steps: int,
    score: Callable[[int | None, int], float],
    ladder: list[int],
    executor: Executor | None,
) -> LandscapeReport:
    """Train twice, align the second solution with the first, look around the first."""
    (objective, net, first), (_, other, second) = (train(name, seed, steps) for seed in (0, 1))
    nn.utils.vector_to_parameters(first, net.parameters())
    nn.utils.vector_to_parameters(second, other.parameters())
    moved = nn.utils.parameters_to_vector(align(net, other).parameters()).detach()
    # A goal that both formulations share: two decades.
    goal: dict[str, Any] = {"share": 0.9} if name == "policy" else {"baseline": 2.0, "share": 1.0}
    return landscape_report(
        name,
        objective,
        first,
        others={"second run": second, "second run, aligned": moved},
        intrinsic=intrinsic_dimension(score, ladder, seeds=(0, 1), executor=executor, **goal),
    )


def conditioning(name: str, speed: float) -> float:
    """Largest Gauss-Newton eigenvalue before training."""
    pinn = pinn_of(name, 0, speed)
    operator = gauss_newton(Objective.of_source(pinn.collocation, pinn.initial()))
    return float(extreme_eigenpairs(operator).values[0])


def main(steps: int = 50, output: Path = Path("out"), workers: int = 1) -> dict[str, Any]:
    """Run all three.

    Args:
        steps: Damped Gauss-Newton steps in a subspace; trainings take some times as many steps.
        output: Folder for pictures and numbers.
        workers: Processes for trainings in subspaces.

    Returns:
        Reports by name, and the eigenvalues by speed under ``"conditioning"``.
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    ladder = [10, 25, 50, 100, 200] if steps >= 30 else [5, 10]
    executor = RayExecutor(workers) if workers > 1 else None
    reports: dict[str, Any] = {}
    for name in ("field", "characteristics", "policy"):
        is_policy = name == "policy"
        reports[name] = report = examine(
            name,
            train_policy if is_policy else train_pinn,
            steps,
            (lambda d, seed: improvement(steps, d, seed))
            if is_policy
            else (lambda d, seed, name=name: decades(name, steps, d, seed)),
            ladder[:3] if is_policy else ladder,
            executor,
        )
        print(report)
        print(f"  {report.save(output / f'landscape_{name}.json')}")
        try:
            print(f"  {report.plot(output / f'landscape_{name}.png')}\n")
        except physim.MissingExtraError as error:
            print(f"  no picture: {error}\n")
    if executor is not None:
        executor.close()
    print("largest Gauss-Newton eigenvalue before training, field and characteristics")
    names = ("field", "characteristics")
    table = {speed: tuple(conditioning(n, speed) for n in names) for speed in (1.0, 10.0, 50.0)}
    for speed, (first, second) in table.items():
        print(f"  speed {speed:4.0f}: {first:9.1f} {second:9.1f}")
    print(f"{time.perf_counter() - began:.0f} s")
    return {**reports, "conditioning": table}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.steps, options.output, options.workers)
