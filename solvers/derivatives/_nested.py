"""Residuals of any module by nested reverse differentiation: the slow way that always works."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.derivatives._base import ChunkedEngine, point_weights
from solvers.derivatives._trace import MultiIndex
from solvers.kernels import evaluate

__all__ = ["NestedEngine"]


class NestedEngine(ChunkedEngine):
    """Weighted residuals of any network at points, by autograd of autograd.

    Args:
        program: Residuals; its network may be any module with as many derivatives as they ask for.
        points: First set of points, shape ``(N, D)``; their device is where everything runs.
        weights: Factor of each residual at each point, shape ``(N,)`` or ``(N, equations)``;
            ``1/sqrt(N)`` by default.
        chunk: Points that are differentiated at a time; bounds memory.

    Raises:
        SettingsError: If ``chunk`` is not positive.

    Example:
        >>> from solvers.derivatives import Layers, ResidualProgram
        >>> program = ResidualProgram(
        ...     lambda f, x, c: f["u"].xx + f["u"], Layers((1, 8, 8, 1)), fields=["u"],
        ...     coordinates=["x"], probe=torch.linspace(0, 1, 8, dtype=torch.float64)[:, None],
        ... )
        >>> engine = NestedEngine(program, torch.linspace(0, 1, 50, dtype=torch.float64)[:, None])
        >>> engine.residuals(program.layers.initial(seed=0)).shape
        torch.Size([1, 50])
    """

    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N ..."] | None = None
    ) -> None:
        """Move to other points, or read changed coefficients of the program."""
        self._weights = point_weights(points, weights, self.program)
        self._points, self._count = points, len(points)

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""
        self.check_parameters(theta)
        parts = [self._residuals(theta.detach(), chunk).detach() for chunk in self._chunks()]
        return torch.cat(parts, dim=1)

    @torch.enable_grad()
    def _total(self, theta: Tensor, *, is_squared: bool) -> tuple[float, Tensor]:
        self.check_parameters(theta)
        variable = theta.detach().clone().requires_grad_()
        total, gradient = 0.0, torch.zeros_like(theta)
        for chunk in self._chunks():
            residuals = self._residuals(variable, chunk)
            loss = (0.5 * residuals.square() if is_squared else residuals).sum()
            gradient += torch.autograd.grad(loss, variable)[0]
            total += float(loss.detach())
        return total, gradient

    @torch.enable_grad()
    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, shape ``(equations * N, P)``."""
        self.check_parameters(theta)
        variable = theta.detach().clone().requires_grad_()
        rows = []
        for chunk in self._chunks():
            residuals = self._residuals(variable, chunk)
            flat = residuals.flatten()
            unit = torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
            (part,) = torch.autograd.grad(flat, variable, unit, is_grads_batched=True)
            rows.append(part.view(*residuals.shape, -1))
        return torch.cat(rows, dim=1).flatten(0, 1)

    @torch.enable_grad()
    def _residuals(self, theta: Tensor, chunk: slice) -> Tensor:
        program = self.program
        points = self._points[chunk].detach().clone().requires_grad_()
        outputs = program.layers(theta, program.inputs(points))
        known: dict[tuple[int, MultiIndex], Tensor] = {}

        def derivative(output: int, index: MultiIndex) -> Tensor:
            if not index:
                return outputs[:, output]
            if (output, index) not in known:
                lower = derivative(output, index[:-1])
                slope = torch.zeros_like(points)
                if lower.requires_grad:
                    slope = torch.autograd.grad(
                        lower.sum(), points, create_graph=True, materialize_grads=True
                    )[0]
                for axis in range(points.shape[1]):
                    known[output, tuple(sorted((*index[:-1], axis)))] = slope[:, axis]
            return known[output, index]

        values = dict(program.values)
        first = program.layers.parameter_count
        values.update(zip(program.unknown, theta[first:], strict=True))
        environment = {
            "x": points,
            "n": [derivative(output, index) for output, index in program.trace.outputs],
            "s": list(values.values()),
        }
        terms = evaluate(program.trace.residuals, environment)
        count = len(points)
        stacked = torch.stack([torch.as_tensor(term).to(points).expand(count) for term in terms])
        return stacked * self._weights[chunk].T
