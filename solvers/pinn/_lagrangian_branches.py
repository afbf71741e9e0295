"""Two networks side by side: one for the characteristics, one for the state along them.

Characteristics are of low dimension and need little; the state may need more. Source: Mojgani,
Balajewicz and Hassanzadeh (2023); the depths are those of its code, where both branches share
their first layers and the deep one repeats a layer. Here they share nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solvers.core import SettingsError, check_positive
from solvers.derivatives import ModuleLayers

__all__ = ["TwoBranchMLP"]


@dataclass(frozen=True)
class TwoBranchMLP:
    """A network for positions and another for the state, for `LagrangianPINN`.

    Trained through nested differentiation, several times slower a step than a shared `MLP`.

    Args:
        width: Units of each hidden layer.
        depth_x: Hidden layers of the branch of positions.
        depth_u: Hidden layers of the branch of the state.

    Raises:
        SettingsError: If a size is not positive.
    """

    width: int = 20
    depth_x: int = 2
    depth_u: int = 5

    def __post_init__(self) -> None:
        for name in ("width", "depth_x", "depth_u"):
            check_positive(name, getattr(self, name))

    def waves(self, inputs: int, seed: int) -> list[list[float]]:
        """No Fourier features."""
        return []

    def layers(self, inputs: int, outputs: int, seed: int) -> ModuleLayers:
        """Both networks with parameters drawn from a seed.

        Raises:
            SettingsError: If there is one output only.
        """
        if outputs < 2:
            raise SettingsError(
                f"network has two branches for {outputs} output, expected positions and a state; "
                "take MLP"
            )
        generator = torch.Generator().manual_seed(seed)
        module = _Branches(inputs, self.width, (self.depth_x, self.depth_u), outputs).double()
        for parameter in module.parameters():
            with torch.no_grad():
                if parameter.ndim == 2:
                    spread = (2 / sum(parameter.shape)) ** 0.5
                    parameter.normal_(0.0, spread, generator=generator)
                else:
                    parameter.zero_()
        return ModuleLayers(module, inputs, outputs)


class _Branches(nn.Module):
    """Outputs of the state last, and their biases the last parameters, as in a shared network."""

    def __init__(self, inputs: int, width: int, depths: tuple[int, int], outputs: int) -> None:
        super().__init__()
        x, u = (
            nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise([inputs, *[width] * n]))
            for n in depths
        )
        self.hidden_x, self.hidden_u = x, u
        self.last_x = nn.Linear(width, outputs - 1, bias=False)
        self.last_u = nn.Linear(width, 1, bias=False)
        self.shift = _Shift(outputs)

    def forward(self, x: Tensor) -> Tensor:
        positions = state = x
        for layer in self.hidden_x:
            positions = torch.tanh(layer(positions))
        for layer in self.hidden_u:
            state = torch.tanh(layer(state))
        result: Tensor = self.shift(torch.cat([self.last_x(positions), self.last_u(state)], -1))
        return result


class _Shift(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias
