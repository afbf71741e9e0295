"""Networks whose parameters are one vector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.core import (
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_kind,
    check_shape,
)
from solvers.derivatives._activation import ACTIVATIONS, Activation, values_of

__all__ = ["Branches", "Layers", "ModuleLayers"]


@dataclass(frozen=True)
class Layers:
    """A multilayer perceptron, its parameters a flat vector.

    The vector holds weight ``(outputs, inputs)`` and bias of each layer in turn: the order of
    ``torch.nn.utils.parameters_to_vector`` for a chain of ``torch.nn.Linear``.

    Args:
        sizes: Inputs, hidden widths, outputs; at least one hidden layer.
        activation: ``"tanh"`` or ``"sin"``.

    Raises:
        SettingsError: If a size is not positive, there is no hidden layer, or the activation is
            unknown.

    Example:
        >>> layers = Layers((2, 20, 20, 1))
        >>> layers.parameter_count
        501
        >>> layers(layers.initial(seed=0), torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5, 1])
    """

    sizes: tuple[int, ...]
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        check_kind("sizes", self.sizes, Sequence, "whole numbers in a row, as in (2, 20, 1)")
        for size in self.sizes:
            check_count("sizes", size)
        if len(self.sizes) < 3:
            raise SettingsError(
                f"sizes is {self.sizes}, expected inputs, one or more hidden widths and outputs, "
                "all positive"
            )
        check_choice("activation", self.activation, ACTIVATIONS)

    @property
    def parts(self) -> tuple[Layers, ...]:
        """Itself, the only branch."""
        return (self,)

    def starts(self) -> list[int]:
        """Place of the parameters of each branch."""
        return [0]

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters."""
        return sum((i + 1) * o for i, o in self._pairs())

    def _pairs(self) -> Iterator[tuple[int, int]]:
        yield from zip(self.sizes[:-1], self.sizes[1:], strict=True)

    def offsets(self) -> list[int]:
        """Place of the weight of each layer in the vector of parameters."""
        places, place = [], 0
        for i, o in self._pairs():
            places.append(place)
            place += (i + 1) * o
        return places

    def split(self, parameters: Float[Tensor, " P"]) -> list[tuple[Tensor, Tensor]]:
        """View the vector as weight and bias of each layer.

        Raises:
            ShapeError: If the vector is too short.
        """
        check_shape("parameters", parameters, "P")
        if len(parameters) < self.parameter_count:
            raise ShapeError(
                f"parameters has {len(parameters)} numbers, expected {self.parameter_count} for "
                f"layers of sizes {self.sizes}"
            )
        views = []
        for place, (i, o) in zip(self.offsets(), self._pairs(), strict=True):
            weight = parameters[place : place + i * o].view(o, i)
            views.append((weight, parameters[place + i * o : place + (i + 1) * o]))
        return views

    def __call__(
        self, parameters: Float[Tensor, " P"], inputs: Float[Tensor, "N I"]
    ) -> Float[Tensor, "N O"]:
        """Evaluate the network.

        Args:
            parameters: Vector of parameters.
            inputs: Points, shape ``(N, inputs)``.

        Returns:
            Outputs, shape ``(N, outputs)``; differentiable by both arguments.
        """
        check_shape("inputs", inputs, f"N {self.sizes[0]}")
        *hidden, (weight, bias) = self.split(parameters)
        values = inputs
        for w, b in hidden:
            values = values_of(self.activation, torch.addmm(b, values, w.T))[0]
        return torch.addmm(bias, values, weight.T)

    def initial(self, seed: int) -> Float[Tensor, " P"]:
        """Draw parameters: weights normal with variance ``2/(inputs + outputs)``, biases zero.

        Reference: Glorot and Bengio (2010).
        """
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for i, o in self._pairs():
            weight = torch.randn(o * i, generator=generator, dtype=torch.float64)
            parts += [weight * math.sqrt(2 / (i + o)), torch.zeros(o, dtype=torch.float64)]
        return torch.cat(parts)


@dataclass(frozen=True)
class Branches:
    """Multilayer perceptrons side by side: the same inputs, outputs one after the other.

    The vector of parameters holds those of each branch in turn.

    Args:
        parts: The branches, of any widths and depths.

    Raises:
        SettingsError: If there is none, or inputs or activations differ.

    Example:
        >>> branches = Branches((Layers((2, 8, 1)), Layers((2, 16, 16, 1))))
        >>> branches.sizes, branches.parameter_count
        ((2, 2), 370)
    """

    parts: tuple[Layers, ...]

    def __post_init__(self) -> None:
        check_kind("parts", self.parts, Sequence, "layers in a row")
        for part in self.parts:
            check_kind("parts", part, Layers, "layers in a row, as in (Layers((2, 8, 1)),)")
        kinds = {(part.sizes[0], part.activation) for part in self.parts}
        if len(kinds) != 1:
            raise SettingsError(
                f"parts have inputs and activations {sorted(kinds)}, expected one of each"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs and outputs."""
        return self.parts[0].sizes[0], sum(part.sizes[-1] for part in self.parts)

    @property
    def activation(self) -> Activation:
        """Activation of all branches."""
        return self.parts[0].activation

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters."""
        return sum(part.parameter_count for part in self.parts)

    def starts(self) -> list[int]:
        """Place of the parameters of each branch."""
        return [0, *itertools.accumulate(part.parameter_count for part in self.parts[:-1])]

    def __call__(
        self, parameters: Float[Tensor, " P"], inputs: Float[Tensor, "N I"]
    ) -> Float[Tensor, "N O"]:
        """Evaluate the network at points ``(N, inputs)``."""
        outputs = [
            part(parameters[first : first + part.parameter_count], inputs)
            for part, first in zip(self.parts, self.starts(), strict=True)
        ]
        return torch.cat(outputs, -1)

    def initial(self, seed: int) -> Float[Tensor, " P"]:
        """Draw the parameters of each branch."""
        count = len(self.parts)
        return torch.cat([p.initial(seed * count + k) for k, p in enumerate(self.parts)])


@dataclass(frozen=True, eq=False)
class ModuleLayers:
    """Any module as a function of one vector of parameters.

    Args:
        module: Takes points ``(N, inputs)`` and gives ``(N, outputs)``; smooth, float64.
        inputs: Inputs of the network.
        outputs: Outputs of the network.

    Raises:
        SettingsError: If the module has no parameters.
    """

    module: nn.Module
    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        check_kind("module", self.module, nn.Module, "a torch module")
        check_count("inputs", self.inputs)
        check_count("outputs", self.outputs)
        if not any(True for _ in self.module.parameters()):
            raise SettingsError("module has no parameters, expected a network to train")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs and outputs."""
        return self.inputs, self.outputs

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters."""
        return sum(p.numel() for p in self.module.parameters())

    def __call__(
        self, parameters: Float[Tensor, " P"], inputs: Float[Tensor, "N I"]
    ) -> Float[Tensor, "N O"]:
        """Evaluate the network at points ``(N, inputs)``."""
        state, place = {}, 0
        for name, parameter in self.module.named_parameters():
            state[name] = parameters[place : place + parameter.numel()].view_as(parameter)
            place += parameter.numel()
        result: Tensor = torch.func.functional_call(self.module, state, (inputs,))
        return result

    def initial(self, seed: int) -> Float[Tensor, " P"]:
        """Parameters of the module as they are; ``seed`` has no effect."""
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().to(torch.float64)
