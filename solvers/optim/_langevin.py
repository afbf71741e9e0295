r"""Langevin dynamics, in flat space and on the sphere.

Flat, at temperature T with a diagonal preconditioner P:
:math:`\theta \leftarrow \theta - \eta P \nabla L + \sqrt{2 \eta T P}\, \xi`; its stationary density
is :math:`\exp(-L/T)` up to an error of order :math:`\eta`.

On the unit sphere :math:`S^{d-1}`, with the drift :math:`b = -\nabla L` and its weight
:math:`\beta`,

.. math:: d\theta = \left(-\tfrac{d-1}{2}\theta + \beta\, P_\theta b(\theta)\right) dt
    + P_\theta\, dW, \qquad P_\theta = I - \theta\theta^\top .

A step adds :math:`\beta\,dt\,P_\theta b + \sqrt{dt}\,P_\theta\xi` and normalises; normalising is
the first term, so it must not be added again. With a small :math:`\beta` an iterate stays near the
equator of the unknown direction and its average finds it all the same. With a large one the
dynamics is ordinary optimisation. The equator ratio, root mean square overlap times
:math:`\sqrt d`, is 1 at the equator and tells which of the two runs.

References: Welling & Teh 2011, "Bayesian learning via stochastic gradient Langevin dynamics";
"Improved high-dimensional estimation with Langevin dynamics and stochastic weight averaging" (ICLR
2026), the equation of the sphere.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_finite, check_positive
from solvers.optim._stepping import GradientOptimizer, check_dense, check_real

__all__ = ["SGLD", "SphereMoments", "SphericalLangevin", "equator_ratio", "langevin_average"]


class _Sampler(GradientOptimizer):
    """An optimizer whose steps draw noise from a generator of its own."""

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], generator: torch.Generator | None
    ) -> None:
        super().__init__(params, defaults)
        check_real(self)
        self.generator = generator or torch.Generator().manual_seed(0)

    def _advance(self) -> None:
        for group in self.param_groups:
            for place, p in enumerate(group["params"]):
                if p.grad is not None:
                    check_dense(p)
                    self._move(p, p.grad, group, place)

    @abstractmethod
    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any], place: int) -> None:
        """Move one tensor along its gradient and the noise."""

    def _noise(self, p: Tensor) -> Tensor:
        # Drawn on the CPU so that a seed means the same numbers on every device.
        draw = torch.randn(p.shape, generator=self.generator, dtype=torch.float64)
        return draw.to(p.device, p.dtype)

    def state_dict(self) -> dict[str, Any]:
        """State with that of the generator, so that a resumed chain is the same chain.

        Returns:
            A dictionary for :meth:`load_state_dict`.
        """
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state_dict: From :meth:`state_dict`.

        Raises:
            SettingsError: If it holds no state of a generator.
        """
        rest = dict(state_dict)
        if "generator" not in rest:
            raise SettingsError(
                f"state_dict: holds {sorted(map(str, rest))}, expected a generator too, as the "
                "state_dict() of this sampler gives it"
            )
        self.generator.set_state(rest.pop("generator").cpu())
        super().load_state_dict(rest)


class SGLD(_Sampler):
    r"""Langevin dynamics in flat space as a ``torch.optim`` optimizer.

    Args:
        params: Tensors or parameter groups.
        lr: Step :math:`\eta`.
        temperature: T, in the unit of the loss; zero is gradient descent. A posterior needs the
            whole negative log density as the loss and temperature 1.
        preconditioner: Positive diagonals P, one tensor for each parameter of the first group in
            order, or None.
        generator: Source of the noise, on the CPU; seed 0 by default.

    Raises:
        SettingsError: If a setting is outside its range.

    Example:
        >>> x = torch.zeros(2000, dtype=torch.float64, requires_grad=True)
        >>> sampler = SGLD([x], lr=0.1)
        >>> for _ in range(100):
        ...     x.grad = x.detach().clone()
        ...     sampler.step()
        >>> bool((x.var() - 1.0 / (1 - 0.05)).abs() < 0.1)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        temperature: float = 1.0,
        preconditioner: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("lr", lr)
        check_positive("temperature", temperature, allow_zero=True)
        for diagonal in preconditioner or ():
            check_positive("preconditioner", diagonal)
        super().__init__(params, {"lr": lr, "temperature": temperature}, generator)
        count = len(self.param_groups[0]["params"])
        if preconditioner is not None and (
            len(self.param_groups) != 1 or len(preconditioner) != count
        ):
            raise SettingsError(
                f"preconditioner: got {len(preconditioner)} tensors, expected one for each of the "
                f"{count} parameters of a single group"
            )
        self._diagonals = preconditioner

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any], place: int) -> None:
        diagonal = 1.0 if self._diagonals is None else self._diagonals[place]
        spread = (
            2.0 * float(group["lr"]) * group["temperature"] * torch.as_tensor(diagonal)
        ).sqrt()
        p.add_(-float(group["lr"]) * diagonal * grad + spread.to(p) * self._noise(p))


class SphericalLangevin(_Sampler):
    r"""Langevin dynamics on the unit sphere as a ``torch.optim`` optimizer.

    Args:
        params: Tensors whose last axis holds unit vectors, so that ``(chains, d)`` are as many
            chains.
        lr: Time step dt; a fraction of 1/d.
        beta: Weight of the drift :math:`-\nabla L`.
        generator: Source of the noise, on the CPU; seed 0 by default.

    Raises:
        SettingsError: If a vector does not have length one.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        beta: float,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("lr", lr)
        check_positive("beta", beta, allow_zero=True)
        super().__init__(params, {"lr": lr, "beta": beta}, generator)
        for group in self.param_groups:
            for p in group["params"]:
                length = torch.linalg.vector_norm(p.detach(), dim=-1)
                if not bool(((length - 1.0).abs() < 1e-4).all()):
                    raise SettingsError(
                        f"params: lengths along the last axis are {float(length.min()):.4g} to "
                        f"{float(length.max()):.4g}, expected 1; divide by the norm first"
                    )

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any], place: int) -> None:
        p.copy_(_sphere_step(p, -grad, self._noise(p), group["beta"], float(group["lr"])))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SphereMoments:
    """Averages of chains on the sphere.

    Attributes:
        mean: Average iterate, shape ``(d,)``; the estimate for losses of odd order.
        second: Average outer product, shape ``(d, d)``; its top eigenvector is the estimate for
            losses of even order.
        last: Last iterates, shape ``(chains, d)``.
        standard_error: Length of the mean that independent chains without drift would have.
    """

    mean: Float[Tensor, " d"]
    second: Float[Tensor, "d d"]
    last: Float[Tensor, "chains d"]
    standard_error: float

    def direction(self) -> Float[Tensor, " d"]:
        """Mean, normalised."""
        unit: Tensor = self.mean / torch.linalg.vector_norm(self.mean)
        return unit

    def axis(self) -> Float[Tensor, " d"]:
        """Top eigenvector of the second moment; its sign has no meaning."""
        vectors: Tensor = torch.linalg.eigh(self.second).eigenvectors
        return vectors[:, -1]


@torch.no_grad()
def langevin_average(
    drift: Callable[[Tensor], Tensor],
    dimension: int,
    *,
    chains: int,
    steps: int,
    beta: float,
    timestep: float | None = None,
    burn_in: int = 100,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> SphereMoments:
    """Average many chains from uniform starts; many short chains replace one long one.

    Args:
        drift: ``b = -grad L`` of points ``(chains, d)``.
        dimension: d.
        chains: Number of chains.
        steps: Steps of each.
        beta: Weight of the drift.
        timestep: dt; ``0.5 / d`` by default.
        burn_in: Steps before averages are taken.
        generator: Source of starts and noise, on the CPU; seed 0 by default.
        dtype: Type of the iterates.

    Returns:
        The moments.

    Raises:
        SettingsError: If nothing is left after the burn-in.
        ShapeError: If the drift has another shape than the points.
        NonFiniteError: If the drift is not finite.

    Example:
        >>> moments = langevin_average(torch.zeros_like, 10, chains=500, steps=150, beta=0.0)
        >>> bool((moments.second - torch.eye(10) / 10).abs().max() < 0.02)
        True
    """
    if not 0 <= burn_in < steps:
        raise SettingsError(f"burn_in: got {burn_in} of {steps} steps, expected fewer than steps")
    dt = 0.5 / dimension if timestep is None else timestep
    check_positive("timestep", dt)
    source = generator or torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(chains, dimension, generator=source, dtype=dtype)

    theta = noise()
    theta /= torch.linalg.vector_norm(theta, dim=1, keepdim=True)
    mean, second = theta.new_zeros(dimension), theta.new_zeros(dimension, dimension)
    for k in range(steps):
        b = drift(theta)
        if b.shape != theta.shape:
            raise ShapeError(f"drift: gives {tuple(b.shape)}, expected {tuple(theta.shape)}")
        check_finite("drift", b, step=k)
        theta = _sphere_step(theta, b, noise(), beta, dt)
        if k >= burn_in:
            mean += theta.mean(0)
            second += theta.T @ theta / chains
    kept = steps - burn_in
    # Without drift a chain forgets itself at the rate (d - 1)/2.
    effective = chains * max(1.0, 0.25 * (dimension - 1) * dt * kept)
    return SphereMoments(
        mean=mean / kept, second=second / kept, last=theta, standard_error=effective**-0.5
    )


def equator_ratio(points: Float[Tensor, "chains d"], axis: Float[Tensor, " d"]) -> float:
    r"""Root mean square overlap with an axis times :math:`\sqrt d`: 1 for uniform points.

    Args:
        points: Unit vectors.
        axis: Direction of any length.

    Returns:
        The ratio, up to :math:`\sqrt d` where all points are aligned.
    """
    overlap = points @ (axis / torch.linalg.vector_norm(axis))
    return math.sqrt(points.shape[-1]) * float(overlap.square().mean().sqrt())


def _sphere_step(theta: Tensor, drift: Tensor, noise: Tensor, beta: float, dt: float) -> Tensor:
    move = beta * dt * drift + math.sqrt(dt) * noise
    move = move - (move * theta).sum(-1, keepdim=True) * theta
    moved = theta + move
    unit: Tensor = moved / torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
    return unit
