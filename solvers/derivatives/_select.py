"""One door to the engines."""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from solvers.core import PerformanceWarning, check_choice, check_kind, check_shape
from solvers.derivatives._base import ResidualEngine
from solvers.derivatives._engine import CompiledEngine
from solvers.derivatives._layers import Branches, Layers
from solvers.derivatives._nested import NestedEngine
from solvers.derivatives._program import ResidualProgram
from solvers.derivatives._sweep import SweepEngine
from solvers.kernels import KernelBuildError

__all__ = ["Backend", "residual_engine"]

Backend: TypeAlias = Literal["auto", "compiled", "sweep", "nested"]


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
    check_kind("program", program, ResidualProgram, "a ResidualProgram")
    check_shape("points", points, f"N {len(program.coordinates)}")
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
