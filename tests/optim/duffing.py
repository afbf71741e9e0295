"""A surrogate of a forced Duffing oscillator: piecewise constant forces to four numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def simulate(forces: Tensor, *, pieces: int, timestep: float = 0.02) -> Tensor:
    """Last position, last velocity, work and largest amplitude, shape (B, 4)."""
    x, v, work, peak = torch.zeros(4, len(forces))
    for force in forces.T:
        for _ in range(pieces):
            v = v + timestep * (force - 0.2 * v - x - x**3)
            x = x + timestep * v
            work = work + timestep * force * v
            peak = torch.maximum(peak, x.abs())
    return torch.stack([x, v, work, peak], 1)


def train_surrogate(n: int, pieces: int, *, steps: int = 1500) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    x = 4 * torch.rand(6000, n) - 2
    y = simulate(x, pieces=pieces)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(0, 6000, (256,))
        optimizer.zero_grad()
        (net(x[chosen]) - y[chosen]).square().mean().backward()
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)


def smooth(y: Tensor) -> Tensor:
    miss = (y[0] - 1.5) ** 2 + y[1] ** 2
    return -miss - 0.02 * y[2] - 5 * torch.relu(y[3] - 2.0) ** 2


def worst_of_four(y: Tensor) -> Tensor:
    goal = torch.tensor([1.0, -0.5, 2.0, 1.6])
    return -(y - goal).abs().max()
