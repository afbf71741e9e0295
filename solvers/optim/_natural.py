r"""Natural gradient: steepest descent in the metric of distributions.

.. math:: \theta \leftarrow \theta - \eta\, (F + \lambda I)^{-1} \nabla L

with the Fisher matrix F of the distribution that the parameters describe. The step does not depend
on how the distribution is parameterised (with :math:`\lambda = 0`). Its length may be set by a
bound :math:`\delta` on the Kullback-Leibler divergence instead,
:math:`\eta = \sqrt{2\delta/(g^\top F^{-1} g)}`. Optionally the metric is
:math:`F^2 + \beta F`, see :func:`solvers.curvature.regime`.

References: Amari 1998, "Natural gradient works efficiently in learning"; Kakade 2001, "A natural
policy gradient", for the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from solvers.core import (
    NonFiniteError,
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_finite,
    check_positive,
)
from solvers.curvature import Family, regime
from solvers.optim._closure import pull_rows
from solvers.optim._damped import Metric, ProductModel
from solvers.optim._stepping import check_coupled, check_real

__all__ = ["NaturalGradient", "NaturalStep", "natural_gradient"]

_DENSE = 20_000_000


def natural_gradient(
    fisher: Float[Tensor, "n n"], gradient: Float[Tensor, " n"], *, damping: float = 0.0
) -> Float[Tensor, " n"]:
    r"""Solve :math:`(F + \lambda I) d = g`.

    Args:
        fisher: Fisher matrix, for example
            :func:`solvers.curvature.exponential_family_fisher`.
        gradient: Of the loss.
        damping: :math:`\lambda`.

    Returns:
        The natural gradient.

    Raises:
        SettingsError: If the damped matrix is not positive definite.

    Example:
        >>> fisher = torch.diag(torch.tensor([1.0, 4.0]))
        >>> natural_gradient(fisher, torch.tensor([1.0, 1.0])).tolist()
        [1.0, 0.25]
    """
    check_positive("damping", damping, allow_zero=True)
    damped = fisher.clone()
    damped.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info):
        raise SettingsError(
            f"fisher: is not positive definite with damping {damping}, expected a regular matrix; "
            "raise the damping or remove parameters without influence"
        )
    solved: Tensor = torch.cholesky_solve(gradient[:, None], factor)
    return solved[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalStep:
    r"""What a step did.

    Attributes:
        loss: Before the step.
        rate: Learning rate that was used.
        divergence: Predicted Kullback-Leibler divergence between before and after,
            :math:`\tfrac12 d^\top F d`, a mean over samples.
        gradient_norm: Euclidean norm of the gradient.
    """

    loss: float
    rate: float
    divergence: float
    gradient_norm: float


class NaturalGradient(Optimizer):
    r"""Natural gradient of a network as a ``torch.optim`` optimizer.

    The closure returns ``(outputs, loss)`` without calling ``backward``: outputs of shape
    ``(samples, k)`` are means of Gaussians or logits of categorical distributions, and the loss is
    any scalar (a policy loss as well as a likelihood).

    Args:
        params: Tensors that take gradients, one group.
        family: What the outputs parameterise.
        lr: Learning rate :math:`\eta`; None if ``divergence`` sets the length.
        divergence: Bound :math:`\delta` on the divergence of one step, a mean over samples.
        std: Standard deviation of Gaussian outputs.
        damping: :math:`\lambda`, in units of F.
        regime_beta: Use :math:`(F^2 + \beta F)^{-1}` with this :math:`\beta`; ``"optimal"`` takes
            the one of :func:`solvers.curvature.regime` for the damped matrix at every step.
        solver: ``"dense"`` (rows of the Jacobian, then the smaller of n and ``samples * k``
            unknowns), ``"cg"`` (products with the Fisher matrix only), or ``"auto"``: dense while
            the rows hold fewer than twenty million numbers.
        cg_tolerance: Relative residual of ``"cg"``.
        cg_iterations: Limit of ``"cg"``; ten often serve with damping.
        chunk: Rows of the Jacobian that are computed at once.

    Attributes:
        report: :class:`NaturalStep` of the last step.

    Raises:
        SettingsError: If not exactly one of ``lr`` and ``divergence`` is given, or ``regime_beta``
            is asked for without a dense solve.

    Cost: dense, ``samples * k`` reverse passes and one factorisation; with ``"cg"`` a forward and a
    reverse pass an iteration.

    Example:
        >>> x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
        >>> w = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        >>> optimizer = NaturalGradient([w], family="gaussian", lr=1.0, damping=0.0)
        >>> _ = optimizer.step(lambda: (x @ w, 0.5 * (x @ w - 3 * x).square().mean()))
        >>> round(float(w.detach()), 9)
        3.0
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        family: Family,
        lr: float | None = None,
        divergence: float | None = None,
        std: Tensor | float = 1.0,
        damping: float = 1e-6,
        regime_beta: float | str | None = None,
        solver: Literal["auto", "dense", "cg"] = "auto",
        cg_tolerance: float = 1e-6,
        cg_iterations: int = 100,
        chunk: int = 64,
    ) -> None:
        check_choice("solver", solver, ("auto", "dense", "cg"))
        if regime_beta is not None and solver == "cg":
            raise SettingsError("regime_beta: needs the matrix, expected solver='dense' or 'auto'")
        check_count("cg_iterations", cg_iterations)
        check_count("chunk", chunk)
        check_choice("family", family, ("gaussian", "categorical"))
        check_positive("damping", damping, allow_zero=True)
        if (lr is None) == (divergence is None):
            raise SettingsError(
                f"lr, divergence: got {lr} and {divergence}, expected exactly one of them"
            )
        check_positive("lr or divergence", lr if lr is not None else divergence or 0.0)
        if isinstance(regime_beta, str):
            check_choice("regime_beta", regime_beta, ("optimal",))
        defaults = {"lr": lr, "divergence": divergence, "damping": damping, "chunk": chunk}
        super().__init__(params, defaults)
        check_real(self)
        if len(self.param_groups) != 1:
            raise SettingsError(
                f"params: got {len(self.param_groups)} groups, expected one; the step couples all "
                "parameters"
            )
        self.params: list[Tensor] = self.param_groups[0]["params"]
        self.report: NaturalStep | None = None
        self._family, self._std, self._beta = family, std, regime_beta
        self._solver, self._cg = solver, (cg_tolerance, cg_iterations)

    @torch.enable_grad()
    def step(self, closure: Callable[[], tuple[Tensor, Tensor]] | None = None) -> float:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Gives outputs and loss, with their graphs.

        Returns:
            The loss before the step.

        Raises:
            SettingsError: If there is no closure or its results do not depend on the parameters.
            ShapeError: If the outputs have not two axes.
            NonFiniteError: If the loss is not finite; the parameters are as before.
        """
        if closure is None:
            raise SettingsError("closure: got None, expected a function giving outputs and loss")
        outputs, loss = closure()
        if outputs.ndim != 2:
            raise ShapeError(f"outputs: got {tuple(outputs.shape)}, expected (samples, k)")
        if not (outputs.requires_grad and loss.requires_grad):
            raise SettingsError(
                "closure: its results do not depend on the parameters; return them without "
                "backward or detach"
            )
        check_coupled(self.params)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(f"loss is {float(loss.detach())}, expected a number", name="loss")
        group = self.param_groups[0]
        gradient = _flat(
            torch.autograd.grad(loss, self.params, retain_graph=True, materialize_grads=True)
        )
        direction, curvature = self._direction(outputs, gradient, group)
        check_finite("natural gradient", direction)
        rate = group["lr"]
        if rate is None:
            rate = (2.0 * group["divergence"] / max(curvature, 1e-300)) ** 0.5
        place = 0
        with torch.no_grad():
            for p in self.params:
                p.sub_(rate * direction[place : place + p.numel()].view_as(p))
                place += p.numel()
        self.report = NaturalStep(
            loss=float(loss.detach()),
            rate=rate,
            divergence=0.5 * rate**2 * curvature,
            gradient_norm=float(torch.linalg.vector_norm(gradient)),
        )
        return self.report.loss

    def _direction(
        self, outputs: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> tuple[Tensor, float]:
        """Natural gradient d and d'Fd."""
        damping = group["damping"]
        is_small = outputs.numel() * gradient.numel() < _DENSE
        if self._solver == "dense" or (is_small and self._solver == "auto"):
            rows = self._rows(outputs, group["chunk"])
            direction = self._solve(rows, gradient, damping)
            return direction, float((rows @ direction).square().sum())
        if self._beta is not None:
            raise SettingsError(
                f"regime_beta: needs the matrix of {gradient.numel()} parameters and "
                f"{outputs.numel()} outputs; pass solver='dense' if memory allows"
            )
        product = self._product(outputs)
        tolerance, iterations = self._cg
        model = ProductModel(
            gradient=-gradient, metric=Metric(), product=product, tolerance=tolerance,
            iterations=iterations,
        )  # fmt: skip
        found = model.step(damping)
        if found is None:
            raise SettingsError(
                f"damping: conjugate gradients met a direction without curvature at {damping}, "
                "expected more damping"
            )
        return found, float(found @ product(found))

    def _product(self, outputs: Tensor) -> Callable[[Tensor], Tensor]:
        """Product with the Fisher matrix, reverse mode only."""
        dummy = torch.zeros_like(outputs, requires_grad=True)
        pulled = _flat(
            torch.autograd.grad(
                outputs, self.params, dummy, create_graph=True, materialize_grads=True
            )
        )

        def multiply(v: Tensor) -> Tensor:
            (moved,) = torch.autograd.grad(
                pulled, dummy, v, retain_graph=True, materialize_grads=True
            )
            if self._family == "gaussian":
                moved = moved / torch.as_tensor(self._std, dtype=v.dtype, device=v.device) ** 2
            else:
                p = torch.softmax(outputs.detach(), 1)
                moved = p * (moved - (p * moved).sum(1, keepdim=True))
            parts = torch.autograd.grad(
                outputs, self.params, moved / len(outputs), retain_graph=True,
                materialize_grads=True,
            )  # fmt: skip
            return _flat(parts)

        return multiply

    def _rows(self, outputs: Tensor, chunk: int) -> Tensor:
        """Matrix whose square is the Fisher matrix."""
        samples, k = outputs.shape
        eye = torch.eye(samples * k, dtype=outputs.dtype, device=outputs.device)
        cotangents = eye.view(-1, samples, k).split(chunk)
        blocks = [pull_rows(outputs, self.params, block) for block in cotangents]
        j: Tensor = torch.cat(blocks).view(samples, k, -1) / samples**0.5
        if self._family == "gaussian":
            std = torch.as_tensor(self._std, dtype=j.dtype, device=j.device).expand(k)
            j = j / std[:, None]
            return j.reshape(samples * k, -1)
        p = torch.softmax(outputs.detach(), 1)
        centred = j - torch.einsum("sk,skn->sn", p, j)[:, None]
        j = p.sqrt()[..., None] * centred
        return j.reshape(samples * k, -1)

    def _solve(self, rows: Tensor, gradient: Tensor, damping: float) -> Tensor:
        m, n = rows.shape
        if self._beta is None and m < n and damping > 0:
            inner = natural_gradient(rows @ rows.T, rows @ gradient, damping=damping)
            return (gradient - rows.T @ inner) / damping
        fisher = rows.T @ rows
        direction = natural_gradient(fisher, gradient, damping=damping)
        if self._beta is None:
            return direction
        damped = fisher + damping * torch.eye(n, dtype=fisher.dtype, device=fisher.device)
        beta = regime(damped).beta if isinstance(self._beta, str) else self._beta
        return natural_gradient(damped, direction, damping=beta)


def _flat(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
