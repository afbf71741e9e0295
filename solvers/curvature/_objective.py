r"""What is minimised, as a function of one parameter vector.

Every tool of curvature and landscapes takes an :class:`Objective`, never a model with a data
loader: a physics-informed residual, an identification through the simulator, a policy loss and a
classifier differ only in the function that they give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad

from solvers.core import NonFiniteError, SettingsError, check_choice
from solvers.curvature._parameters import ParameterSpace

__all__ = ["Mode", "Objective", "ResidualSource"]

Network = Callable[..., Any]

Mode = Literal["forward", "reverse", "difference"]
"""How second derivatives are taken, see :func:`solvers.curvature.hessian`."""

_MODES = ("forward", "reverse", "difference")


class ResidualSource(Protocol):
    """Residuals of a vector that bring derivatives of their own, as a compiled engine does."""

    def residuals(self, theta: Float[Tensor, " n"]) -> Float[Tensor, "..."]:
        """Residuals of any shape, without graph."""

    def jacobian(self, theta: Float[Tensor, " n"]) -> Float[Tensor, "m n"]:
        """Derivatives of the residuals in a row."""

    def loss_and_gradient(self, theta: Float[Tensor, " n"]) -> tuple[float, Float[Tensor, " n"]]:
        """Half the sum of squares, and its gradient."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    r"""A loss of one vector, with its composite structure where there is one.

    The structure is :math:`f(\theta) = \ell(z(\theta))` with outputs :math:`z` and a convex
    :math:`\ell`; for a least-squares problem :math:`z` is the residual and
    :math:`\ell(z) = \tfrac12 \|z\|^2`. Build one with :meth:`of_loss`, :meth:`of_residual`,
    :meth:`of_outputs`, :meth:`of_module` or, for residuals with derivatives of their own,
    :meth:`of_source`.

    Attributes:
        loss: Vector ``(n,)`` to scalar. Written with ``torch.func`` or plain operations.
        start: Present parameters, shape ``(n,)``.
        space: Layout of the vector.
        outputs: Vector ``(n,)`` to outputs of any shape, or None.
        output_loss: Outputs to scalar, or None.
        is_least_squares: Whether the outputs are residuals.
        mode: How second derivatives are taken unless one asks for another way.
        source: Where residuals and first derivatives come from; None for autograd.

    Example:
        >>> line = Objective.of_residual(lambda p: p[0] + torch.arange(3) * p[1], torch.ones(2))
        >>> float(line.loss(line.start))
        7.0
    """

    loss: Callable[[Tensor], Tensor]
    start: Float[Tensor, " n"]
    space: ParameterSpace
    outputs: Callable[[Tensor], Tensor] | None = None
    output_loss: Callable[[Tensor], Tensor] | None = None
    is_least_squares: bool = False
    mode: Mode = "forward"
    source: ResidualSource | None = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, _MODES)

    @classmethod
    def of_loss(
        cls,
        loss: Callable[[Tensor], Tensor],
        start: Float[Tensor, " n"],
        *,
        mode: Mode = "forward",
    ) -> Objective:
        """Take a scalar function of a vector.

        Args:
            loss: ``(n,)`` to scalar.
            start: Point of interest.
            mode: ``"reverse"`` for losses that call ``torch.autograd.grad`` themselves,
                ``"difference"`` for those that have a gradient and no second derivatives, as a
                rollout of the compiled simulator.

        Returns:
            The objective, without Gauss-Newton structure.
        """
        return cls(loss=loss, start=start.detach(), space=_plain(start), mode=mode)

    @classmethod
    def of_source(cls, source: ResidualSource, start: Float[Tensor, " n"]) -> Objective:
        r"""Take residuals that bring their Jacobian and gradient; the loss is half their square.

        A physics-informed network is one: ``Objective.of_source(pinn.collocation,
        result.network.theta)``. Hessian products are differences of gradients.

        Args:
            source: Gives residuals, Jacobian, and loss with gradient. Its points must stay.
            start: Point of interest.

        Returns:
            The objective.

        Example:
            >>> class Line:
            ...     x = torch.linspace(0, 1, 4, dtype=torch.float64)
            ...     def residuals(self, p):
            ...         return p[0] + p[1] * self.x
            ...     def jacobian(self, p):
            ...         return torch.stack([torch.ones_like(self.x), self.x], 1)
            ...     def loss_and_gradient(self, p):
            ...         r = self.residuals(p)
            ...         return 0.5 * float(r @ r), self.jacobian(p).T @ r
            >>> objective = Objective.of_source(Line(), torch.ones(2, dtype=torch.float64))
            >>> [round(g, 6) for g in objective.gradient().tolist()]
            [6.0, 3.555556]
        """
        objective = _composite(source.residuals, _half_square, start.detach(), _plain(start), True)
        return replace(objective, mode="difference", source=source)

    @classmethod
    def of_residual(
        cls,
        residual: Callable[[Tensor], Tensor],
        start: Float[Tensor, " n"],
        *,
        mode: Mode = "forward",
    ) -> Objective:
        r"""Take a residual vector; the loss is :math:`\tfrac12\|r\|^2`.

        Args:
            residual: ``(n,)`` to residuals of any shape.
            start: Point of interest.
            mode: As in :meth:`of_loss`.

        Returns:
            The objective.
        """
        objective = _composite(residual, _half_square, start.detach(), _plain(start), True)
        return replace(objective, mode=mode)

    @classmethod
    def of_outputs(
        cls,
        outputs: Callable[[Tensor], Tensor],
        output_loss: Callable[[Tensor], Tensor],
        start: Float[Tensor, " n"],
    ) -> Objective:
        """Take outputs and a convex loss of them.

        Args:
            outputs: ``(n,)`` to outputs.
            output_loss: Outputs to scalar, convex.
            start: Point of interest.

        Returns:
            The objective.
        """
        return _composite(outputs, output_loss, start.detach(), _plain(start), False)

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        *,
        loss: Callable[[Network], Tensor] | None = None,
        residual: Callable[[Network], Tensor] | None = None,
        outputs: Callable[[Network], Tensor] | None = None,
        output_loss: Callable[[Tensor], Tensor] | None = None,
        mode: Mode = "forward",
    ) -> Objective:
        """Take a module and a function of the network that it is.

        The function receives a callable that acts as the module does, at parameters of our choice:
        ``residual=lambda network: network(x) - y``.

        Args:
            module: Its parameters that take gradients become the vector; it is not changed.
            loss: Network to scalar.
            residual: Network to residuals.
            outputs: Network to outputs, together with ``output_loss``.
            output_loss: Outputs to scalar, convex.
            mode: As in :meth:`of_loss`.

        Returns:
            The objective.

        Raises:
            SettingsError: If not exactly one of ``loss``, ``residual`` and ``outputs`` is given, or
                the module has nothing to train.
        """
        given = [f for f in (loss, residual, outputs) if f is not None]
        if len(given) != 1 or (outputs is None) != (output_loss is None):
            raise SettingsError(
                f"loss, residual, outputs: got {len(given)} of them, expected exactly one, and "
                "output_loss together with outputs only"
            )
        space, start = ParameterSpace.of(module)
        function = given[0]

        def at(vector: Tensor) -> Tensor:
            named = space.unflatten(vector)
            return function(lambda *inputs: functional_call(module, named, inputs))

        if loss is not None:
            return cls(loss=at, start=start, space=space, mode=mode)
        is_residual = output_loss is None
        return replace(
            _composite(at, output_loss or _half_square, start, space, is_residual), mode=mode
        )

    @property
    def residual(self) -> Callable[[Tensor], Tensor]:
        """The residual function of a least-squares objective.

        Raises:
            SettingsError: If this is no least-squares objective.
        """
        if self.outputs is None or not self.is_least_squares:
            raise SettingsError(
                "objective: has no residual, expected one built with of_residual or "
                "of_module(residual=...)"
            )
        return self.outputs

    def gradient(self, theta: Float[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Gradient of the loss.

        Args:
            theta: Where; the start by default.

        Returns:
            A vector without graph.
        """
        point = (self.start if theta is None else theta).detach()
        if self.source is not None:
            return self.source.loss_and_gradient(point)[1].detach()
        if self.mode == "forward":
            slope: Tensor = grad(self.loss)(point)
            return slope.detach()
        with torch.enable_grad():
            leaf = point.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(leaf), leaf, materialize_grads=True)
        return slope

    def check_repeatable(self, theta: Float[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
        """Evaluate the loss twice and insist on the same finite number.

        Args:
            theta: Where; the start by default.

        Returns:
            The loss.

        Raises:
            SettingsError: If the two differ: samples must be drawn before, or from a generator
                that is seeded inside the function.
            NonFiniteError: If the loss is NaN or infinite.
        """
        point = self.start if theta is None else theta
        # With grad enabled: a loss may differentiate inside.
        first, second = self.loss(point).detach(), self.loss(point).detach()
        if not bool(torch.isfinite(first)):
            raise NonFiniteError(
                f"loss is {float(first)} at this point, expected a finite number; start from "
                "other parameters or look for division by zero",
                name="loss",
            )
        if not bool(first == second):
            raise SettingsError(
                f"objective: gave {float(first)!r} and then {float(second)!r} at the same point, "
                "expected one number; draw its samples beforehand, or seed a generator inside"
            )
        return first


def _half_square(z: Tensor) -> Tensor:
    return 0.5 * z.square().sum()


def _plain(start: Tensor) -> ParameterSpace:
    if start.ndim != 1:
        raise SettingsError(f"start: got shape {tuple(start.shape)}, expected a vector")
    return ParameterSpace({"parameters": start})


def _composite(
    outputs: Callable[[Tensor], Tensor],
    output_loss: Callable[[Tensor], Tensor],
    start: Tensor,
    space: ParameterSpace,
    is_least_squares: bool,
) -> Objective:
    return Objective(
        loss=lambda vector: output_loss(outputs(vector)),
        start=start,
        space=space,
        outputs=outputs,
        output_loss=output_loss,
        is_least_squares=is_least_squares,
    )
