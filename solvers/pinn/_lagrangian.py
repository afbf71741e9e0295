"""Physics-informed networks on moving labels, for equations that transport.

Source: Mojgani, Balajewicz and Hassanzadeh (2023), Kolmogorov n-width and Lagrangian
physics-informed neural networks; the equations are those of the module on labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.core import Report, SettingsError, check_choice
from solvers.pde import Box, Problem, evaluation_grid
from solvers.pinn._export import export_result
from solvers.pinn._figure import draw_result
from solvers.pinn._labels import Formulation, Transport, label_problem, wrap
from solvers.pinn._networks import MLP
from solvers.pinn._pinn import PINN
from solvers.pinn._result import FieldNetwork, write_result

__all__ = ["LagrangianPINN", "LagrangianResult"]

_GRID = (128, 21)
_BRACKET_LABELS = 128
_MOST_ITERATIONS = 80


class LagrangianPINN:
    r"""A network that gives the paths of labels and the state along them.

    For :math:`u_t + c(u,x,t)\,u_x = \nu\,u_{xx} + s` on a periodic interval or between walls. Speed
    makes such an equation hard for `PINN`; here it costs nothing. Training starts from labels at
    rest; with diffusion from labels that move with the mean speed of the initial state.

    Args:
        problem: The equation; speed, diffusivity and source are read off its residual.
        network: Two outputs; three hidden layers of 20 with diffusion, two without, by default.
        formulation: ``"viscous"`` (labels drift with diffusion; cannot fold), ``"lagrangian"``
            (exact characteristics; they cross after a shock), or ``"published"`` (the equations of
            the source, biased where diffusion meets a speed that varies).
        seed: Seed of parameters and points.
        points: Collocation points; 800 without diffusion and 3000 with it by default.
        **options: Further options of `PINN`.

    Raises:
        SettingsError: If the equation is of another form or something flows through a boundary.

    Example:
        >>> from solvers.pde import Initial, Periodic
        >>> from solvers.pde.functions import pi, sin
        >>> problem = Problem(
        ...     name="convection", domain=Box(x=(0, 2 * pi), t=(0, 1)),
        ...     residual=lambda u, x, t: u.t + 30 * u.x,
        ...     conditions=[Initial(u=sin), Periodic("x")],
        ...     reference=lambda x, t: sin(x - 30 * t),
        ... )
        >>> result = LagrangianPINN(problem).fit(20, target=1e-5)
        >>> result.relative_l2 < 1e-4
        True
    """

    def __init__(
        self,
        problem: Problem,
        network: MLP | None = None,
        *,
        formulation: Formulation = "viscous",
        seed: int = 0,
        points: int | None = None,
        **options: Any,
    ) -> None:
        check_choice("formulation", formulation, ("viscous", "lagrangian", "published"))
        self.problem = problem
        self.transport = Transport(problem)
        self.formulation = formulation
        is_viscous = self.transport.is_viscous
        self.pinn = PINN(
            label_problem(self.transport, formulation),
            network or MLP(width=20, depth=3 if is_viscous else 2),
            seed=seed,
            points=points or (3000 if is_viscous else 800),
            **{
                "sampling": "even",
                "resample_every": 500,
                "residual_scales": (1.0, 1.0),
                **options,
            },
        )
        self.pinn.meter = lambda: _LabelMeter(self.transport)

    def fit(self, budget: float = 60.0, tolerance: float | None = None, **options: Any) -> Any:
        """Train, as `PINN.fit` does.

        Args:
            budget: Wall time [s].
            tolerance: Stop when the held-out residual is below.
            **options: Further options of `PINN.fit`. Errors are measured on labels, weighted with
                the space that each stands for.

        Returns:
            A `LagrangianResult`.
        """
        start = self.pinn.initial()
        if self.transport.is_viscous:
            # labels that begin far from where they move may fold on the way there
            lower, upper = self.problem.domain.bounds["t"]
            start[-2] = self.transport.drift * (upper - lower)
        result = self.pinn.fit(budget, tolerance, **{"start": start, **options})
        return LagrangianResult(
            problem=self.problem,
            transport=self.transport,
            network=result.network,
            report=result.report,
            history=result.history,
            settings={**result.settings, "formulation": self.formulation},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LagrangianResult:
    """What `LagrangianPINN.fit` found.

    Attributes:
        problem: The problem.
        transport: Its speed, diffusivity and source.
        network: Labels and times ``(N, 2)`` to positions and states ``(N, 2)``.
        report: As `PINNResult.report`.
        history: As `PINNResult.history`.
        settings: What the network was made from.
    """

    problem: Problem
    transport: Transport
    network: FieldNetwork
    report: Report
    history: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]

    def __call__(self, x: Tensor | float, t: Tensor | float) -> Tensor:
        """Evaluate the field at positions, by finding the labels that have come there.

        Args:
            x: Positions.
            t: Times, a shape that broadcasts.

        Returns:
            Values of the broadcast shape, float64; differentiable by the parameters, not by
            position.

        Raises:
            SettingsError: If the map has folded, so that several labels are at one place.
        """
        places, times = torch.broadcast_tensors(
            torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(t, dtype=torch.float64)
        )
        labels = self.labels(places.reshape(-1), times.reshape(-1))
        values: Tensor = self.network(torch.stack([labels, times.reshape(-1)], 1))[:, 1]
        return values.reshape(places.shape)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write parameters and settings to one safetensors file, for `load`.

        Returns:
            Path of the file.
        """
        return write_result(path, self, {})

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the field over space and time, its error against the reference, and the history.

        Args:
            path: File that ends in ``.png``, ``.svg`` or ``.pdf``; written whole or not at all.

        Returns:
            Path of the file.

        Raises:
            MissingExtraError: If matplotlib is not installed.
            SettingsError: If the ending is not known, the folder does not exist, or the map from
                labels has folded.
        """
        return draw_result(self, path)

    def export(
        self, path: str | os.PathLike[str], *, points: int | None = None, times: int = 41
    ) -> Path:
        """Write the field and its reference on a grid, as `PINNResult.export` does."""
        return export_result(self, path, points=points, times=times)

    def labels(self, x: Float[Tensor, " N"], t: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Find the labels at positions: Newton's method inside a bracket that shrinks.

        Raises:
            SettingsError: If the map has folded.
        """
        low, high = self._brackets(x, t)
        label = (low + high) / 2
        scale = float((x.abs() + 1.0).max())
        for _ in range(_MOST_ITERATIONS):
            variable = label.clone().requires_grad_()
            with torch.enable_grad():
                position = self.network(torch.stack([variable, t], 1))[:, 0]
                (slope,) = torch.autograd.grad(position.sum(), variable)
            error = position.detach() - x
            if float(error.abs().max()) <= 1e-13 * scale:
                break
            if bool((slope <= 0).any()) and float(error.abs().max()) <= 1e-9 * scale:
                break
            low, high = (
                torch.where(error < 0, label, low),
                torch.where(error < 0, high, label),
            )
            newton = label - error / slope
            is_inside = (newton > low) & (newton < high) & (slope > 0)
            label = torch.where(is_inside, newton, (low + high) / 2)
        return label

    def _brackets(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Labels between which each position must lie."""
        lower, upper = self.problem.domain.bounds[self.problem.domain.axes[0]]
        times, back = torch.unique(t, return_inverse=True)
        labels = torch.linspace(lower, upper, _BRACKET_LABELS, dtype=torch.float64)
        grid = torch.cartesian_prod(times, labels).flip(1)
        with torch.no_grad():
            positions = self.network(grid)[:, 0].view(len(times), -1)
        if bool((positions.diff(dim=1) <= 0).any()):
            raise SettingsError(
                "the map from labels to positions has folded; take formulation='viscous', train "
                "longer, or stop before the characteristics cross"
            )
        moved = positions - labels
        spread = moved.amax(1) - moved.amin(1) + (upper - lower) / _BRACKET_LABELS
        return (
            x - (moved.amax(1) + 0.1 * spread)[back],
            x - (moved.amin(1) - 0.1 * spread)[back],
        )

    @property
    def smallest_jacobian(self) -> float:
        """Least ``dX/dxi`` on a grid: how close labels have come; not positive if the map folds."""
        box = Box(xi=self.problem.domain.bounds[self.problem.domain.axes[0]],
                  t=self.problem.domain.bounds["t"])  # fmt: skip
        points = box.grid(512, 41).requires_grad_()
        (slope,) = torch.autograd.grad(self.network(points)[:, 0].sum(), points)
        return float(slope[:, 0].min())

    @property
    def relative_l2(self) -> float:
        """L2 error against the reference over that of its mean, on a regular grid in space.

        Raises:
            SettingsError: If the problem has no reference or the map has folded.
        """
        points = evaluation_grid(self.problem, 256, 41)
        exact = self.problem.reference_values(points)[self.transport.field]
        with torch.no_grad():
            values = self(points[:, 0], points[:, 1])
        return float((values - exact).norm() / (exact - exact.mean()).norm())


class _LabelMeter:
    """Error at labels, weighted with the space that each stands for; nothing is inverted."""

    def __init__(self, transport: Transport) -> None:
        domain = transport.problem.domain
        if transport.problem.reference is None:
            raise SettingsError(f"{transport.problem.name} has no reference solution")
        self._transport = transport
        self._points = Box(xi=domain.bounds[domain.axes[0]], t=domain.bounds["t"]).grid(*_GRID)

    def __call__(self, network: nn.Module) -> float:
        points = self._points.clone().requires_grad_()
        fields = network(points)
        (slope,) = torch.autograd.grad(fields[:, 0].sum(), points)
        weight = slope[:, 0].clamp(min=0.0)
        position = wrap(self._transport, fields[:, 0].detach())
        there = torch.stack([position, self._points[:, 1]], 1)
        exact = self._transport.problem.reference_values(there)[self._transport.field]
        error = fields[:, 1].detach() - exact
        mean = (weight * exact).sum() / weight.sum()
        total = (weight * (exact - mean).square()).sum()
        return float(((weight * error.square()).sum() / total).sqrt())
