"""Find a viscosity from 200 noisy measurements: the same solver, one name more."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from solvers.pde import Data, problems, sample
from solvers.pinn import MLP, PINN


def main(noise: float = 0.01, steps: int = 3000, seed: int = 0) -> float:
    """Train on data of a known viscosity, from a first guess ten times too large."""
    true = 0.01 / math.pi
    exact = problems.Burgers(nu=true)
    points = sample(exact.domain, 200, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    noises = noise * torch.randn(200, generator=generator, dtype=torch.float64)
    data = Data(points, scale=noise, u=exact.reference_values(points)["u"] + noises)
    problem = replace(
        problems.Burgers(nu=10 * true), unknown=("nu",),
        conditions=[*exact.conditions, data], reference=None,
    )  # fmt: skip
    # Many points and little weight on the data: following the noise would bend the equation.
    result = PINN(problem, MLP(width=16, depth=3), points=4000, condition_weight=1e-4).fit(
        60, steps=steps
    )
    found = result.coefficients["nu"]
    print(f"viscosity {found:.6f}, true {true:.6f}: {100 * abs(found / true - 1):.1f} % off")
    return found


if __name__ == "__main__":
    main()
