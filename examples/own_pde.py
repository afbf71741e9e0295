"""Solve an equation of your own: a reaction front that travels, and how fast it does.

Fisher's equation u_t = D u_xx + r u (1 - u) has one front in closed form, of speed 5 sqrt(D r / 6)
(Ablowitz and Zeppetella 1979).
"""

from __future__ import annotations

import math

import torch

from solvers.pde import Box, Dirichlet, Initial, Problem
from solvers.pde.functions import exp
from solvers.pinn import PINN

D, R = 0.02, 6.0
WIDTH, SPEED = math.sqrt(6 * D / R), 5 * math.sqrt(D * R / 6)


def front(x, t):  # type: ignore[no-untyped-def]
    """The exact solution."""
    return 1 / (1 + exp((x - SPEED * t - 0.3) / WIDTH)) ** 2


fisher = Problem(
    name="Fisher",
    domain=Box(x=(0, 2), t=(0, 1)),
    residual=lambda u, x, t, d, r: u.t - d * u.xx - r * u * (1 - u),
    coefficients={"d": D, "r": R},
    conditions=[
        Initial(u=lambda x: front(x, 0.0)),
        Dirichlet(axis="x", side="lower", u=lambda t: front(0.0, t)),
        Dirichlet(axis="x", side="upper", u=lambda t: front(2.0, t)),
    ],
    reference=front,
)


def main(budget: float = 20.0, target: float = 1e-5) -> tuple[float, float]:
    """Train, then follow the place where u = 1/2; gives the error and the speed."""
    result = PINN(fisher, seed=0).fit(budget, target=target)
    x = torch.linspace(0, 2, 2001, dtype=torch.float64)
    with torch.no_grad():
        places = [float(x[(result(x, t) - 0.5).abs().argmin()]) for t in (0.2, 0.8)]
    speed = (places[1] - places[0]) / 0.6
    seconds = result.history[-1]["seconds"]
    print(f"relative L2 error {result.relative_l2:.1e} after {seconds:.1f} s of training")
    print(f"the front moves at {speed:.4f}; in closed form {SPEED:.4f}")
    return result.relative_l2, speed


if __name__ == "__main__":
    main()
