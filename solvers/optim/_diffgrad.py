r"""diffGrad: Adam whose step shrinks where the gradient changes little.

With the gradient :math:`g_t`, elementwise:

.. math::
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
    v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \\
    \xi_t &= \operatorname{sigmoid}|g_{t-1} - g_t|, \qquad g_0 = 0, \\
    \theta_t &= \theta_{t-1} - \gamma \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{\xi_t m_t}{\sqrt{v_t} + \epsilon}.

The friction :math:`\xi` lies in [1/2, 1). Where gradients are far below one it is 1/2 and the
method is Adam at half the learning rate; where they change by much more than one it is Adam. The
variant ``relative=True`` first divides the change by
:math:`\sqrt{v_t/(1 - \beta_2^t)} + \epsilon` and does not depend on the scale of the loss. Compare
over a sweep of learning rates, never at one.

The previous gradient must be a copy. If it is the tensor that the next backward pass overwrites,
the difference is always zero and the method is Adam at half the learning rate.

Reference: Dubey et al. 2020, "diffGrad: an optimization method for convolutional neural networks",
IEEE Transactions on Neural Networks and Learning Systems 31(11), equations for xi and the update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError, check_positive
from solvers.optim._stepping import GradientOptimizer, check_dense

__all__ = ["DiffGrad"]


class DiffGrad(GradientOptimizer):
    """Adam with the friction of diffGrad; used as any ``torch.optim`` optimizer.

    Args:
        params: Tensors or parameter groups.
        lr: Learning rate; effectively half of it while gradients are far below one.
        betas: Decay of the running mean of gradients and of their squares.
        eps: Added to the root of the mean square.
        weight_decay: Coupled: added to the gradient before everything else, its change included.
        decoupled_weight_decay: Shrink parameters by ``lr * weight_decay`` instead.
        amsgrad: Divide by the largest mean square so far.
        relative: Measure the change of the gradient in units of its root mean square.
        maximize: Ascend.
        foreach: One call for all tensors of a group; by default where they share type and device.

    Raises:
        SettingsError: If a setting is outside its range, or a gradient is sparse.

    State of a parameter: ``step``, ``exp_avg``, ``exp_avg_sq``, ``previous_grad`` and with
    ``amsgrad`` ``max_exp_avg_sq``. Memory: one tensor more than Adam.

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> optimizer = DiffGrad([x], lr=0.5)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     (x**2).sum().backward()
        ...     _ = optimizer.step()
        >>> bool(x.abs() < 1e-2)
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        amsgrad: bool = False,
        relative: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        check_positive("lr", lr, allow_zero=True)
        check_positive("eps", eps, allow_zero=True)
        check_positive("weight_decay", weight_decay, allow_zero=True)
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise SettingsError(f"betas: got {betas}, expected two numbers in [0, 1)")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "amsgrad": amsgrad,
            "relative": relative,
            "maximize": maximize,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def _advance(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                check_dense(p)
                self._prepare(p, group)
            foreach = group["foreach"]
            if foreach is None:
                foreach = len({(p.dtype, p.device) for p in params}) == 1
            for batch in [params] if foreach else [[p] for p in params]:
                self._update(batch, group)

    def _prepare(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        names = ["exp_avg", "exp_avg_sq", "previous_grad"]
        if group["amsgrad"]:
            names.append("max_exp_avg_sq")
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        for state in states:
            state["step"] += 1
        beta1, beta2 = group["betas"]
        lr, eps, decay = float(group["lr"]), group["eps"], group["weight_decay"]
        grads: Sequence[Tensor] = [p.grad for p in params if p.grad is not None]
        if group["maximize"]:
            grads = torch._foreach_neg(list(grads))
        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(params, 1.0 - lr * decay)
        elif decay:
            grads = torch._foreach_add(list(grads), params, alpha=decay)

        # A complex entry is two real ones, each with its own friction.
        points, slopes = _real(params), _real(grads)
        mean, square, previous = (
            _real([state[name] for state in states])
            for name in ("exp_avg", "exp_avg_sq", "previous_grad")
        )
        torch._foreach_lerp_(mean, slopes, 1.0 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, slopes, slopes, 1.0 - beta2)
        change = torch._foreach_abs(torch._foreach_sub(previous, slopes))
        torch._foreach_copy_(previous, slopes)
        if group["amsgrad"]:
            largest = _real([state["max_exp_avg_sq"] for state in states])
            torch._foreach_maximum_(largest, square)
            square = largest
        root = torch._foreach_add(torch._foreach_sqrt(square), eps)
        if group["relative"]:
            corrections = [(1.0 - beta2 ** float(state["step"])) ** 0.5 for state in states]
            typical = torch._foreach_div(torch._foreach_sqrt(square), corrections)
            change = torch._foreach_div(change, torch._foreach_add(typical, eps))
        friction = torch._foreach_sigmoid(change)
        torch._foreach_mul_(friction, mean)
        steps = [float(state["step"]) for state in states]
        sizes = [-lr * (1.0 - beta2**t) ** 0.5 / (1.0 - beta1**t) for t in steps]
        torch._foreach_addcdiv_(points, friction, root, sizes)


def _real(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.view_as_real(t) if torch.is_complex(t) else t for t in tensors]
