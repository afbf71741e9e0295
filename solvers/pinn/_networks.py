"""Networks to choose from; each becomes layers of an engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.core import SettingsError, check_count
from solvers.derivatives import Layers, ModuleLayers
from solvers.pde import Problem

__all__ = ["MLP", "ModifiedMLP", "OwnNetwork", "default_network"]


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron, which the compiled engine takes.

    Args:
        width: Units of each hidden layer.
        depth: Hidden layers.
        activation: ``"tanh"`` or ``"sin"``.
        frequencies: Random waves whose sines and cosines are further inputs (Fourier features,
            Tancik et al. 2020); 0 for none.
        scale: Standard deviation of their wave numbers, in units of half the domain.

    Raises:
        SettingsError: If a size is not positive.
    """

    width: int = 16
    depth: int = 4
    activation: Any = "tanh"
    frequencies: int = 0
    scale: float = 2.0

    def __post_init__(self) -> None:
        check_count("width", self.width)
        check_count("depth", self.depth)
        if self.frequencies < 0:
            raise SettingsError(f"frequencies is {self.frequencies}, expected 0 or more")

    def waves(self, inputs: int, seed: int) -> list[list[float]]:
        """Draw the wave numbers of the Fourier features, one row a wave."""
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randn(self.frequencies, inputs, generator=generator, dtype=torch.float64)
        rows: list[list[float]] = (self.scale * numbers).tolist()
        return rows

    def layers(self, inputs: int, outputs: int, seed: int) -> Layers:
        """Shape of the network."""
        return Layers((inputs, *[self.width] * self.depth, outputs), self.activation)


def default_network(problem: Problem) -> MLP:
    """Four hidden layers of 16, with what an equation asks for beside.

    Equations of second order in time have waves that come and go, which sines follow and
    hyperbolic tangents hardly do. Those of third order and higher break into many narrow waves, and
    get layers of 24.
    """
    orders = {order for sought in problem.derivatives.values() for order in sought}
    time = problem.domain.axis("t") if "t" in problem.domain.axes else None
    is_wave = time is not None and any(order[time] >= 2 for order in orders)
    is_high = any(sum(order) >= 3 for order in orders)
    return MLP(width=24 if is_high else 16, activation="sin" if is_wave else "tanh")


@dataclass(frozen=True)
class ModifiedMLP:
    r"""Hidden layers between two gates: :math:`h \leftarrow z\,U + (1 - z)\,V`.

    Trained through nested differentiation, several times slower a step than `MLP`.

    Args:
        width: Units of each hidden layer.
        depth: Hidden layers.

    Reference: Wang, Teng and Perdikaris (2021), Understanding and mitigating gradient flow
    pathologies in physics-informed neural networks, section 2.6.
    """

    width: int = 32
    depth: int = 3

    def waves(self, inputs: int, seed: int) -> list[list[float]]:
        """No Fourier features."""
        return []

    def layers(self, inputs: int, outputs: int, seed: int) -> ModuleLayers:
        """The network with parameters drawn from a seed."""
        check_count("width", self.width)
        check_count("depth", self.depth)
        generator = torch.Generator().manual_seed(seed)
        module = _Gated(inputs, self.width, self.depth, outputs).double()
        for parameter in module.parameters():
            with torch.no_grad():
                if parameter.ndim == 2:
                    spread = (2 / sum(parameter.shape)) ** 0.5
                    parameter.normal_(0.0, spread, generator=generator)
                else:
                    parameter.zero_()
        return ModuleLayers(module, inputs, outputs)


class _Gated(nn.Module):
    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList([nn.Linear(inputs, width), nn.Linear(inputs, width)])
        sizes = [inputs, *[width] * depth]
        self.hidden: Sequence[nn.Module] = nn.ModuleList(  # type: ignore[assignment]
            nn.Linear(a, b) for a, b in itertools.pairwise(sizes)
        )
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        u, v = (torch.tanh(gate(x)) for gate in self.gates)
        h = x
        for layer in self.hidden:
            z = torch.tanh(layer(h))
            h = z * u + (1 - z) * v
        result: Tensor = self.last(h)
        return result


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """Any module from inputs of the network to its outputs, smooth and in float64.

    Args:
        module: Takes ``(N, inputs)``, gives ``(N, outputs)``.
    """

    module: nn.Module

    def waves(self, inputs: int, seed: int) -> list[list[float]]:
        """No Fourier features."""
        return []

    def layers(self, inputs: int, outputs: int, seed: int) -> ModuleLayers:
        """The module, checked on one point.

        Raises:
            SettingsError: If it does not fit.
        """
        try:
            with torch.no_grad():
                shape = tuple(self.module(torch.zeros(1, inputs, dtype=torch.float64)).shape)
        except RuntimeError as error:
            raise SettingsError(
                f"network does not take float64 points of shape (N, {inputs}): {error}; make its "
                f"first layer {inputs} wide and convert it with network.double()"
            ) from error
        if shape != (1, outputs):
            raise SettingsError(
                f"network gives shape {shape} for one point, expected (1, {outputs})"
            )
        return ModuleLayers(self.module, inputs, outputs)
