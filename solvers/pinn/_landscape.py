r"""The loss around a network: curvature spectra and surfaces, from the residuals that it trains on.

With weighted residuals r and their Jacobian J, both from the engine, the loss is
:math:`f = \tfrac12 |r|^2`, its Gauss-Newton matrix :math:`J^\top J`, and a product with its Hessian
the derivative of the gradient g along a direction, a difference of fourth order:

.. math:: H v \approx \frac{8\,(g_{+1} - g_{-1}) - (g_{+2} - g_{-2})}{12 h}, \qquad
          g_k = g(\theta + k h v).

Source of the question: Mojgani, Balajewicz and Hassanzadeh (2023), who compare landscapes in the
fixed and the moving frame; surfaces along random directions as in Li, Xu, Taylor, Studer and
Goldstein (2018), section 4: each row of weights of a direction has the length of the network's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    check_choice,
    check_count,
    check_positive,
    check_shape,
    describe,
)
from solvers.curvature import (
    Eigenpairs,
    SpectralDensity,
    SymmetricOperator,
    extreme_eigenpairs,
    spectral_density,
)
from solvers.derivatives import Branches, Layers, ModuleLayers
from solvers.pinn._arguments import check_seed
from solvers.pinn._collocation import Collocation
from solvers.pinn._lagrangian import LagrangianPINN
from solvers.pinn._pinn import PINN

__all__ = [
    "Directions",
    "LossLandscape",
    "gauss_newton_operator",
    "hessian_operator",
    "loss_landscape",
]

Directions: TypeAlias = Literal["eigenvectors", "random"]

_STEP = 1e-3
"""Length of a difference in parameters, over one plus their root mean square."""

_TOLERANCE = 1e-6
_DENSITY_STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossLandscape:
    """The loss around given parameters.

    Attributes:
        loss: At the centre.
        gauss_newton: Largest eigenpairs of the Gauss-Newton matrix.
        hessian: Eigenpairs of the Hessian that are largest in size.
        density: Of the eigenvalues of the Gauss-Newton matrix.
        offsets: Multiples of the directions at which the surface is known, shape ``(n,)``.
        surface: Loss at the centre and multiples of two directions, shape ``(n, n)``, the first
            direction along the rows.
        directions: Two rows of the length of the parameters, which is also their own length.
    """

    loss: float
    gauss_newton: Eigenpairs
    hessian: Eigenpairs
    density: SpectralDensity
    offsets: Float[Tensor, " n"]
    surface: Float[Tensor, "n n"]
    directions: Float[Tensor, "2 P"]


def loss_landscape(
    solver: PINN | LagrangianPINN,
    theta: Float[Tensor, " P"] | None = None,
    *,
    count: int = 10,
    directions: Directions = "eigenvectors",
    reach: float = 0.5,
    resolution: int = 31,
    probes: int = 4,
    seed: int = 0,
) -> LossLandscape:
    """Look around parameters of a network, in either frame.

    Args:
        solver: What trains; its present points and scales of residuals make the loss.
        theta: Where; the first parameters by default.
        count: Eigenvalues wanted of each matrix.
        directions: Of the surface: the two leading ``"eigenvectors"`` of the Gauss-Newton matrix,
            or two ``"random"`` ones with rows as long as those of the network.
        reach: Farthest offset, over the length of the parameters.
        resolution: Points of the surface along each direction, odd to hold the centre.
        probes: Random vectors of the density.
        seed: Of random vectors.

    Returns:
        Spectra and surface. Eigenvalues that missed their tolerance have the status
        ``MAX_ITERATIONS`` in their report.

    Raises:
        SettingsError: If a setting is out of range.
        ShapeError: If ``theta`` is not as long as the parameters.

    Cost: some ten products for each eigenvalue, of a Jacobian ``(residuals, P)`` that is kept or of
    four gradients, and ``resolution`` squared losses.
    """
    _check_solver(solver)
    check_seed(seed)
    check_choice("directions", directions, ("eigenvectors", "random"))
    check_positive("reach", reach)
    for name, value, least in (("count", count, 2), ("resolution", resolution, 3)):
        check_count(name, value, least=least)
    point = _point(solver, theta)
    collocation = solver.collocation
    source = torch.Generator().manual_seed(seed)
    rows = gauss_newton_operator(solver, point)
    count = min(count, rows.size)
    newton = extreme_eigenpairs(
        rows, count, tolerance=_TOLERANCE, generator=source, on_failure="mask"
    )
    hessian = extreme_eigenpairs(
        hessian_operator(solver, point), count, which="magnitude", tolerance=_TOLERANCE,
        generator=source, on_failure="mask",
    )  # fmt: skip
    if directions == "random":
        pair = torch.stack([_row_scaled(collocation, point, source) for _ in range(2)])
    else:
        pair = newton.vectors[:2] * point.norm()
    offsets = torch.linspace(-reach, reach, resolution, dtype=torch.float64)
    return LossLandscape(
        loss=_loss(collocation, point),
        gauss_newton=newton,
        hessian=hessian,
        density=spectral_density(rows, probes=probes, steps=_DENSITY_STEPS, generator=source),
        offsets=offsets,
        surface=_surface(collocation, point, pair, offsets),
        directions=pair,
    )


def gauss_newton_operator(
    solver: PINN | LagrangianPINN, theta: Float[Tensor, " P"] | None = None
) -> SymmetricOperator:
    """Gauss-Newton matrix of the loss, by the rows of the engine.

    Args:
        solver: What trains.
        theta: Where; the first parameters by default.

    Returns:
        Products with ``J^T J``, whose J is computed once and kept.

    Raises:
        ShapeError: If ``theta`` is not as long as the parameters.
    """
    point = _point(solver, theta)
    jacobian = solver.collocation.jacobian(point)
    return SymmetricOperator(
        product=lambda v: jacobian.T @ (jacobian @ v), size=len(point), dtype=point.dtype
    )


def hessian_operator(
    solver: PINN | LagrangianPINN, theta: Float[Tensor, " P"] | None = None
) -> SymmetricOperator:
    """Hessian of the loss, by differences of the engine's gradient.

    Args:
        solver: What trains.
        theta: Where; the first parameters by default.

    Returns:
        Products with the Hessian, each of four gradients, to about ten digits.

    Raises:
        ShapeError: If ``theta`` is not as long as the parameters.
    """
    point = _point(solver, theta)
    slope = solver.collocation.loss_and_gradient
    step = _STEP * (1.0 + float(point.square().mean().sqrt()))

    def product(v: Tensor) -> Tensor:
        length = float(v.norm())
        if length == 0.0:
            return torch.zeros_like(v)
        h = step / length
        near = slope(point + h * v)[1] - slope(point - h * v)[1]
        far = slope(point + 2 * h * v)[1] - slope(point - 2 * h * v)[1]
        return (8 * near - far) / (12 * h)

    return SymmetricOperator(
        product=product, size=len(point), dtype=point.dtype, is_vectorized=False
    )


def _point(solver: PINN | LagrangianPINN, theta: Tensor | None) -> Tensor:
    _check_solver(solver)
    point = solver.initial() if theta is None else theta
    check_shape("theta", point, str(solver.collocation.parameter_count))
    return point.detach().double()


def _check_solver(solver: object) -> None:
    if not hasattr(solver, "collocation"):
        raise SettingsError(
            f"solver: got {describe(solver)}, expected PINN(problem) or LagrangianPINN(problem), "
            "with theta=result.network.theta for trained parameters"
        )


def _loss(collocation: Collocation, theta: Tensor) -> float:
    return sum(engine.loss(theta) for engine in collocation.engines)


def _surface(
    collocation: Collocation, point: Tensor, pair: Tensor, offsets: Tensor
) -> Float[Tensor, "n n"]:
    rows = [
        [_loss(collocation, point + a * pair[0] + b * pair[1]) for b in offsets] for a in offsets
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _row_scaled(collocation: Collocation, point: Tensor, source: torch.Generator) -> Tensor:
    """A random direction whose rows of weights are as long as the network's; biases stay."""
    layers = collocation.program.layers
    direction = torch.randn(len(point), generator=source, dtype=torch.float64)
    scaled = torch.zeros_like(direction)
    for place, rows, columns in _weights(layers):
        part = slice(place, place + rows * columns)
        drawn, known = (v[part].view(rows, columns) for v in (direction, point))
        lengths = known.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
        scaled[part] = (drawn * lengths).flatten()
    return scaled


def _weights(layers: Layers | Branches | ModuleLayers) -> Iterator[tuple[int, int, int]]:
    """Place, rows and columns of every matrix of weights among the parameters."""
    if isinstance(layers, ModuleLayers):
        place = 0
        for parameter in layers.module.parameters():
            if parameter.ndim > 1:
                yield place, len(parameter), parameter[0].numel()
            place += parameter.numel()
        return
    for part, first in zip(layers.parts, layers.starts(), strict=True):
        pairs = itertools.pairwise(part.sizes)
        for offset, (columns, rows) in zip(part.offsets(), pairs, strict=True):
            yield first + offset, rows, columns
