"""Physics-informed networks on moving labels, for equations that transport.

Source: Mojgani, Balajewicz and Hassanzadeh (2023), Kolmogorov n-width and Lagrangian
physics-informed neural networks; the equations are those of the module on labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from solvers.core import check_choice, check_count
from solvers.derivatives import ModuleLayers
from solvers.pde import Problem
from solvers.pinn._arguments import check_problem
from solvers.pinn._characteristics import label_domain, label_problem
from solvers.pinn._collocation import Collocation
from solvers.pinn._labels import Formulation, Transport
from solvers.pinn._lagrangian_branches import TwoBranchMLP
from solvers.pinn._lagrangian_result import LabelMeter, LagrangianResult
from solvers.pinn._networks import MLP
from solvers.pinn._pinn import PINN

__all__ = ["LagrangianPINN", "LagrangianResult"]


class LagrangianPINN:
    r"""A network that gives the paths of labels and the state along them.

    For :math:`u_t + c(u,x,t)\cdot\nabla u = \nu\,\Delta u + s` on an interval or a rectangle. Speed
    makes such an equation hard for `PINN`; here it costs nothing. Training starts from labels that
    move with the mean speed of the initial state.

    Boundaries are periodic, walls that nothing crosses, or open: through those the initial state,
    continued beyond the domain, flows in; what does not diffuse and whose speed does not depend on
    the state may have them.

    Args:
        problem: The equation; speed, diffusivity and source are read off its residual.
        network: `MLP`, shared by positions and state: three hidden layers of 20 with diffusion or
            in a plane, two on a line without, by default; `TwoBranchMLP` for one network each.
        formulation: ``"viscous"`` (labels drift with diffusion; cannot fold), ``"lagrangian"``
            (exact characteristics; they cross after a shock), or ``"published"`` (the equations of
            the source, biased where diffusion meets a speed that varies).
        seed: Seed of parameters and points.
        points: Collocation points; 800 on a line without diffusion and 3000 otherwise by default.
        labels: Lower and upper end of the labels along axes in space; by default the domain, and as
            far outside as what flows in through open faces begins.
        **options: Further options of `PINN`.

    Raises:
        SettingsError: If the equation is of another form, or flows through a boundary otherwise
            than told above.

    Example:
        >>> from solvers.pde import Box, Initial, Periodic
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
        network: MLP | TwoBranchMLP | nn.Module | None = None,
        *,
        formulation: Formulation = "viscous",
        seed: int = 0,
        points: int | None = None,
        labels: Mapping[str, tuple[float, float]] | None = None,
        **options: Any,
    ) -> None:
        check_problem(problem)
        check_choice("formulation", formulation, ("viscous", "lagrangian", "published"))
        if points is not None:
            check_count("points", points)
        self.problem = problem
        self.transport = Transport(problem)
        self.formulation = formulation
        self.label_domain = label_domain(self.transport, labels)
        is_easy = self.transport.dimension == 1 and not self.transport.is_viscous
        enough = 800 if is_easy else 3000
        chosen: Any = MLP(width=20, depth=2 if is_easy else 3) if network is None else network
        self.pinn = PINN(
            label_problem(self.transport, self.label_domain, formulation),
            chosen,
            seed=seed,
            points=points or enough,
            **{
                "most_points": max(points or enough, enough),
                "sampling": "even",
                "resample_every": 500,
                "residual_scales": (1.0,) * (self.transport.dimension + 1),
                **options,
            },
        )
        self.pinn.meter = lambda: LabelMeter(self.transport, self.label_domain)

    @property
    def collocation(self) -> Collocation:
        """The loss over labels."""
        return self.pinn.collocation

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended the last training."""
        return self.pinn.is_interrupted

    def initial(self) -> Tensor:
        """First parameters.

        Labels move with the mean speed where no wall holds them, so that training is the same at
        any uniform speed added to all; labels far from where they move may fold on the way there.
        """
        start = self.pinn.initial()
        layers = self.collocation.program.layers
        if not isinstance(layers, ModuleLayers):
            branch = layers.parts[0]
            biases = branch.parameter_count - branch.sizes[-1]
            lower, upper = self.problem.domain.bounds["t"]
            held = {a for a, _ in self.label_domain.walls}
            for a, speed in enumerate(self.transport.drift):
                if a not in held:
                    start[biases + a] = speed * (upper - lower)
        return start

    def fit(
        self, budget: float = 60.0, tolerance: float | None = None, **options: Any
    ) -> LagrangianResult:
        """Train, as `PINN.fit` does.

        Args:
            budget: Wall time [s].
            tolerance: Stop when the held-out residual is below.
            **options: Further options of `PINN.fit`. Errors are measured on labels, weighted with
                the space that each stands for.

        Returns:
            Paths and states, and the story of their training.
        """
        result = self.pinn.fit(budget, tolerance, **{"start": self.initial(), **options})
        ranges = self.label_domain.box.bounds
        axes = self.problem.domain.axes
        wide = {
            axis: list(ends)
            for axis, ends, period in zip(
                axes, ranges.values(), self.label_domain.periods, strict=False
            )
            if not period
        }
        return LagrangianResult(
            problem=self.problem,
            transport=self.transport,
            network=result.network,
            report=result.report,
            history=result.history,
            settings={**result.settings, "formulation": self.formulation, "labels": wide},
        )
