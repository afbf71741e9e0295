"""One door to the engines."""

from __future__ import annotations

import warnings
from typing import Literal, Protocol, TypeAlias

from jaxtyping import Float
from torch import Tensor

from solvers.core import PerformanceWarning, check_choice
from solvers.derivatives._engine import CompiledEngine
from solvers.derivatives._layers import Branches, Layers
from solvers.derivatives._nested import NestedEngine
from solvers.derivatives._program import ResidualProgram
from solvers.derivatives._sweep import SweepEngine
from solvers.kernels import KernelBuildError

__all__ = ["Backend", "ResidualEngine", "residual_engine"]

Backend: TypeAlias = Literal["auto", "compiled", "sweep", "nested"]


class ResidualEngine(Protocol):
    """Weighted residuals of a network at points, as functions of its parameters."""

    program: ResidualProgram

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters, unknown coefficients last."""

    @property
    def residual_count(self) -> int:
        """Number of residuals: equations times points."""

    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N ..."] | None = None
    ) -> None:
        """Move to other points."""

    def loss(self, theta: Float[Tensor, " P"]) -> float:
        """Half the sum of squares of the weighted residuals."""

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Half the sum of squares of the weighted residuals, and its gradient."""

    def sum_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Sum of the weighted residuals, an integral if they are densities, and its gradient."""

    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, shape ``(equations * N, P)``."""


def residual_engine(
    program: ResidualProgram,
    points: Float[Tensor, "N D"],
    weights: Float[Tensor, "N ..."] | None = None,
    *,
    backend: Backend = "auto",
    threads: int = 1,
) -> ResidualEngine:
    """Make the engine that suits a program and a machine.

    Args:
        program: Residuals of a network.
        points: First set of points, shape ``(N, D)``.
        weights: Factor of each residual at each point; ``1/sqrt(N)`` by default.
        backend: ``"compiled"`` for multilayer networks on the CPU, ``"sweep"`` for the same in
            torch, ``"nested"`` for any module; ``"auto"`` takes the first that fits.
        threads: Threads of the compiled engine.

    Returns:
        The engine. All give the same numbers up to rounding.

    Raises:
        SettingsError: If the backend is unknown or takes no such network.
        KernelBuildError: If ``backend`` is ``"compiled"`` and the compiler refuses the text.

    Example:
        >>> import torch
        >>> program = ResidualProgram(
        ...     lambda f, x, c: f["u"].xx + f["u"], Layers((1, 8, 8, 1)), fields=["u"],
        ...     coordinates=["x"], probe=torch.linspace(0, 1, 8, dtype=torch.float64)[:, None],
        ... )
        >>> points = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
        >>> type(residual_engine(program, points, backend="sweep")).__name__
        'SweepEngine'
    """
    check_choice("backend", backend, ("auto", "compiled", "sweep", "nested"))
    is_compilable = isinstance(program.layers, Layers | Branches) and points.device.type == "cpu"
    if backend == "auto" and not (is_compilable or isinstance(program.layers, Layers)):
        backend = "nested"
    if backend == "nested":
        return NestedEngine(program, points, weights)
    if backend == "sweep" or (backend == "auto" and points.device.type != "cpu"):
        return SweepEngine(program, points, weights)
    try:
        return CompiledEngine(program, points, weights, threads=threads)
    except (KernelBuildError, ImportError) as error:
        if backend == "compiled":
            raise
        is_swept = isinstance(program.layers, Layers)
        other = "the torch sweep" if is_swept else "nested differentiation"
        warnings.warn(
            f"the compiled engine is not available, {other} takes its place: {error}",
            PerformanceWarning,
            stacklevel=2,
        )
        return (SweepEngine if is_swept else NestedEngine)(program, points, weights)
