r"""Residuals that are any function of the unknowns.

The Jacobian comes from forward mode, one direction for each unknown and all items at once; the
exact Hessian and the gradients of :math:`\langle v, \nabla C\rangle` from reverse mode on the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from solvers.core import SettingsError, ShapeError, check_positive
from solvers.nonlinear._least_squares import LeastSquaresProblem, NormalEquations

__all__ = ["GeneralProblem"]


class GeneralProblem(LeastSquaresProblem):
    r"""Batch of problems :math:`\min_w \tfrac12 |r(w, \theta)|^2 + \tfrac12 \rho |w|^2`.

    Args:
        residual: ``residual(w, *parameters)`` of one item: from ``(N,)`` to ``(M,)``, in operations
            that ``torch.func`` can transform.
        parameters: What it depends on besides, one entry an item: shapes ``(E, ...)``.
        unknowns: Number of unknowns ``N``.
        ridge: Factor :math:`\rho`.

    Raises:
        SettingsError: If there is no parameter, or one is not float64.
        ShapeError: If the parameters differ in their number of items.

    Cost: ``N`` times the residual for a step, with a Jacobian of ``(e, M, N)`` in memory.

    Example:
        >>> from solvers.nonlinear import LevenbergMarquardt
        >>> goal = torch.tensor([[4.0], [9.0]], dtype=torch.float64)
        >>> problem = GeneralProblem(lambda w, goal: w * w - goal, [goal], unknowns=1)
        >>> start = torch.ones(2, 1, dtype=torch.float64)
        >>> LevenbergMarquardt().solve(problem, start).value[:, 0].round(decimals=6).tolist()
        [2.0, 3.0]
    """

    def __init__(
        self,
        residual: Callable[..., Tensor],
        parameters: Sequence[Tensor],
        *,
        unknowns: int,
        ridge: float = 0.0,
    ):
        check_positive("unknowns", unknowns)
        check_positive("ridge", ridge, allow_zero=True)
        if not parameters:
            raise SettingsError("parameters: got none, expected at least one tensor (E, ...)")
        self.tensors = tuple(parameters)
        self.items, self.unknowns = len(self.tensors[0]), unknowns
        for number, tensor in enumerate(self.tensors):
            if tensor.dtype != torch.float64:
                raise SettingsError(
                    f"parameters[{number}]: got {tensor.dtype}, expected torch.float64"
                )
            if not tensor.ndim or len(tensor) != self.items:
                raise ShapeError(
                    f"parameters[{number}]: got shape {tuple(tensor.shape)}, expected "
                    f"({self.items}, ...): one entry an item"
                )

        def checked(w: Tensor, *rest: Tensor) -> Tensor:
            return _call(residual, w, rest)

        def cost(w: Tensor, *rest: Tensor) -> Tensor:
            return 0.5 * (checked(w, *rest).square().sum() + ridge * w.square().sum())

        self.ridge = ridge
        self._residual, self._cost = checked, cost

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items."""
        some = [tensor.detach()[items] for tensor in self.tensors]
        if is_exact:
            cost, gradient = vmap(self._cost)(w, *some), vmap(grad(self._cost))(w, *some)
            return NormalEquations(cost, gradient, vmap(hessian(self._cost))(w, *some))
        r = vmap(self._residual)(w, *some)
        J = vmap(jacfwd(self._residual))(w, *some)
        eye = torch.eye(self.unknowns, dtype=w.dtype, device=w.device)
        return NormalEquations(
            0.5 * (r.square().sum(-1) + self.ridge * w.square().sum(-1)),
            (J.mT @ r[..., None])[..., 0] + self.ridge * w,
            J.mT @ J + self.ridge * eye,
        )

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in the parameters."""
        with torch.enable_grad():
            some = [tensor.detach()[items].requires_grad_() for tensor in self.tensors]
            at = w.detach().requires_grad_()
            cost = vmap(self._cost)(at, *some).sum()
            (slope,) = torch.autograd.grad(cost, at, create_graph=True)
            found = torch.autograd.grad(slope, some, v, allow_unused=True)
        bars: list[Tensor | None] = []
        for tensor, bar in zip(self.tensors, found, strict=True):
            whole = torch.zeros_like(tensor)
            if bar is not None:
                whole[items] = bar
            bars.append(whole)
        return bars


def _call(residual: Callable[..., Tensor], w: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Rows of one item."""
    try:
        r = residual(w, *parameters)
    except TypeError as error:
        count = len(parameters)
        raise SettingsError(
            f"residual: called with w of shape {tuple(w.shape)} and {count} "
            f"parameter{'' if count == 1 else 's'} of one item, it raised {error}"
        ) from error
    if not isinstance(r, Tensor):
        raise SettingsError(
            f"residual: gave {type(r).__name__} for one item, expected a tensor (M,); join numbers "
            "with torch.stack"
        )
    if r.ndim != 1:
        raise ShapeError(f"residual: gave shape {tuple(r.shape)} for one item, expected (M,)")
    return r
