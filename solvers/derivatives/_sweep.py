"""The collapsed sweep on torch tensors: twin of the compiled engine, and its GPU path."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.derivatives._activation import slopes_from_values, values_of
from solvers.derivatives._activation_program import record_activation
from solvers.derivatives._base import ChunkedEngine, point_weights
from solvers.derivatives._engine import multilayer
from solvers.derivatives._program import ResidualProgram
from solvers.kernels import evaluate

__all__ = ["SweepEngine"]


class SweepEngine(ChunkedEngine):
    """Weighted residuals of a multilayer network at points, by hand-written sweeps in torch.

    Channels go through the layers forward and their cotangents back, without autograd.

    Args:
        program: Residuals over the channels of a network.
        points: First set of points, shape ``(N, D)``; their device is where everything runs.
        weights: Factor of each residual at each point, shape ``(N,)`` or ``(N, equations)``;
            ``1/sqrt(N)`` by default.
        chunk: Points that go through the layers at a time; bounds memory.

    Raises:
        SettingsError: If ``chunk`` is not positive.

    Example:
        >>> from solvers.derivatives import Layers
        >>> program = ResidualProgram(
        ...     lambda f, x, c: f["u"].xx + f["u"], Layers((1, 8, 8, 1)), fields=["u"],
        ...     coordinates=["x"], probe=torch.linspace(0, 1, 8, dtype=torch.float64)[:, None],
        ... )
        >>> engine = SweepEngine(program, torch.linspace(0, 1, 50, dtype=torch.float64)[:, None])
        >>> engine.residuals(program.layers.initial(seed=0)).shape
        torch.Size([1, 50])
    """

    def _take_in(self, program: ResidualProgram) -> None:
        self._layers = multilayer(program)
        self._activation = record_activation(program.plan)

    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N ..."] | None = None
    ) -> None:
        """Move to other points, or read changed coefficients of the program."""
        factors = point_weights(points, weights, self.program)
        tables = self.program.tables(points, factors.to(points.device))
        self._count = len(points)
        self._jets = tables.jets.movedim(1, 0)
        self._values = tables.values
        self._weights = self.program.weights().tolist()

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""
        self.check_parameters(theta)
        return torch.cat([self._forward(theta, c).residuals for c in self._chunks()], dim=1)

    def _total(self, theta: Tensor, *, is_squared: bool) -> tuple[float, Tensor]:
        self.check_parameters(theta)
        loss, gradient = 0.0, torch.zeros_like(theta)
        views = self._layers.split(gradient)
        network = self.program.layers.parameter_count
        for chunk in self._chunks():
            state = self._forward(theta, chunk)
            residuals = state.residuals
            loss += float((0.5 * residuals.square() if is_squared else residuals).sum())
            factors = residuals if is_squared else torch.ones_like(residuals)
            slopes = torch.einsum("en,ejn->jn", factors, state.slopes)
            outputs = len(slopes) - len(self.program.unknown)
            gradient[network:] += slopes[outputs:].sum(1)
            for layer, bar, inputs in self._backward(theta, state, slopes[:outputs]):
                weight, bias = views[layer]
                weight.addmm_(bar.flatten(0, 1).T, inputs.flatten(0, 1))
                bias += bar[0].sum(0)
        return loss, gradient

    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, shape ``(equations * N, P)``."""
        self.check_parameters(theta)
        program, layers = self.program, self._layers
        rows = theta.new_zeros(program.equations, self._count, program.parameter_count)
        for chunk in self._chunks():
            state = self._forward(theta, chunk)
            for e, slopes in enumerate(state.slopes):
                outputs = len(slopes) - len(program.unknown)
                part = rows[e, chunk]
                part[:, layers.parameter_count :] = slopes[outputs:].T
                for layer, bar, inputs in self._backward(theta, state, slopes[:outputs]):
                    first, size = layers.offsets()[layer], bar.shape[2] * inputs.shape[2]
                    product = torch.einsum("cno,cni->noi", bar, inputs)
                    part[:, first : first + size] = product.flatten(1)
                    part[:, first + size : first + size + bar.shape[2]] = bar[0]
        return rows.flatten(0, 1)

    def _forward(self, theta: Tensor, chunk: slice) -> _State:
        layers = self._layers
        *hidden, (weight, bias) = layers.split(theta)
        values, state = self._jets[:, chunk], _State()
        state.inputs.append(values)
        for w, b in hidden:
            z = values @ w.T
            z[0] += b
            known = values_of(layers.activation, z[0])
            f = slopes_from_values(layers.activation, known, self._activation.order)
            moved = evaluate(self._activation.forward, self._environment(z, f))
            values = torch.stack([known[0], *moved])
            state.arguments.append(z)
            state.inputs.append(values)
        outputs = values @ weight.T
        outputs[0] += bias
        state.residuals, state.slopes = self._residual(theta, outputs, self._values[chunk])
        return state

    def _environment(self, z: Tensor, f: list[Any]) -> dict[str, Any]:
        # the last entry of f stands for the derivative that only the reverse pass reads
        return {"z": list(z), "f": [*f, 0.0], "a": self._weights}

    def _residual(self, theta: Tensor, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        program, count = self.program, outputs.shape[1]
        network = program.layers.parameter_count
        known = dict(program.values)
        known.update(zip(program.unknown, theta[network:], strict=True))
        environment = {
            "o": list(outputs.transpose(1, 2).flatten(0, 1)),
            "p": list(values.T),
            "s": list(known.values()),
        }
        results = [
            torch.as_tensor(y).to(outputs).expand(count)
            for y in evaluate(program.expressions, environment)
        ]
        equations = program.equations
        residuals = torch.stack(results[:equations])
        return residuals, torch.stack(results[equations:]).view(equations, -1, count)

    def _backward(
        self, theta: Tensor, state: _State, slopes: Tensor
    ) -> list[tuple[int, Tensor, Tensor]]:
        """Cotangents of the outputs of each layer, and the layer's inputs, last layer first."""
        layers, activation = self._layers, self._activation
        weights = [w for w, _ in layers.split(theta)]
        bar = slopes.view(len(self.program.plan), layers.sizes[-1], -1).transpose(1, 2)
        found = []
        for layer in range(len(weights) - 1, -1, -1):
            found.append((layer, bar, state.inputs[layer]))
            if layer:
                g = bar @ weights[layer]
                z = state.arguments[layer - 1]
                known = (state.inputs[layer][0],)
                if layers.activation != "tanh":
                    known = values_of(layers.activation, z[0])
                f = slopes_from_values(layers.activation, known, activation.order + 1)
                environment = {**self._environment(z, f), "f": f, "g": list(g)}
                bars = evaluate(activation.backward, environment)
                bar = torch.stack([torch.as_tensor(b).to(z).expand_as(z[0]) for b in bars])
        return found


class _State:
    """What the reverse sweep needs of the forward one."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.arguments: list[Tensor] = []
        self.residuals = torch.empty(0)
        self.slopes = torch.empty(0)
