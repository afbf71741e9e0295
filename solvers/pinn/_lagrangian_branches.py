"""Two networks side by side: one for the characteristics, one for the state along them.

Characteristics are of low dimension and need little; the state may need more. Source: Mojgani,
Balajewicz and Hassanzadeh (2023); the depths are those of its code, where both branches share
their first layers and the deep one repeats a layer. Here they share nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solvers.core import SettingsError, check_positive
from solvers.derivatives import Branches, Layers

__all__ = ["TwoBranchMLP"]


@dataclass(frozen=True)
class TwoBranchMLP:
    """A perceptron for positions and another for the state, for `LagrangianPINN`.

    Args:
        width: Units of each hidden layer.
        depth_x: Hidden layers of the branch of positions.
        depth_u: Hidden layers of the branch of the state.
        activation: ``"tanh"`` or ``"sin"``.

    Raises:
        SettingsError: If a size is not positive.
    """

    width: int = 20
    depth_x: int = 2
    depth_u: int = 5
    activation: Any = "tanh"

    def __post_init__(self) -> None:
        for name in ("width", "depth_x", "depth_u"):
            check_positive(name, getattr(self, name))

    def waves(self, inputs: int, seed: int) -> list[list[float]]:
        """No Fourier features."""
        return []

    def layers(self, inputs: int, outputs: int, seed: int) -> Branches:
        """Shapes of both branches; the last output is the state.

        Raises:
            SettingsError: If there is one output only.
        """
        if outputs < 2:
            raise SettingsError(
                f"network has two branches for {outputs} output, expected positions and a state; "
                "take MLP"
            )
        hidden = [(self.width,) * depth for depth in (self.depth_x, self.depth_u)]
        return Branches(
            (
                Layers((inputs, *hidden[0], outputs - 1), self.activation),
                Layers((inputs, *hidden[1], 1), self.activation),
            )
        )
