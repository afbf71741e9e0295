r"""The attack operator: a small move of a network's input that shifts its output along a direction.

.. math:: \max_{\|d\|_\infty \le r} \langle u, \Phi(x + d) - \Phi(x) \rangle

approximately, by signs of the gradient of the linear loss :math:`\langle u, \Phi(x + d)\rangle`. A
classification attack that is given :math:`u` as class probabilities follows the cross-entropy
instead, whose gradient at zero output is :math:`u` less its mean, another direction.

Reference: Bouchet & Vidal 2025, "Optimization by directional attacks: solving problems with
neural network surrogates"; Goodfellow et al. 2015 (sign method); Madry et al. 2018 (projected).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import check_choice, check_finite, check_positive, check_shape

__all__ = ["AttackMethod", "Bounds", "attack"]

AttackMethod = Literal["fgsm", "pgd"]
Bounds = tuple[Tensor | float, Tensor | float]


def attack(
    phi: Callable[[Tensor], Tensor],
    x: Float[Tensor, " n"],
    direction: Float[Tensor, " m"],
    radius: float,
    *,
    method: AttackMethod = "fgsm",
    steps: int = 5,
    bounds: Bounds | None = None,
) -> Float[Tensor, " n"]:
    r"""Find a move of the input along which the output goes in a direction.

    Args:
        phi: Network, ``(n,)`` to ``(m,)``.
        x: Input; inside the bounds.
        direction: ``u``.
        radius: Largest entry of the move, in the unit of the input.
        method: ``"fgsm"``, one step to the corner of the box, or ``"pgd"``, several of length
            :math:`2.5\, r/K`.
        steps: K of ``"pgd"``.
        bounds: Lowest and highest input; the moved input is clipped to them.

    Returns:
        The move, at most ``radius`` in every entry. Zero where the network is flat.

    Raises:
        SettingsError: If the radius is not positive or the method is not known.
        NonFiniteError: If the gradient is not finite.

    Gradients: none; the move is detached. Cost: one forward and one backward pass a step.

    Example:
        >>> shift = attack(lambda x: 2 * x, torch.zeros(3), torch.tensor([1.0, -1.0, 0.0]), 0.1)
        >>> [round(float(s), 3) for s in shift]
        [0.1, -0.1, 0.0]
    """
    check_choice("method", method, ("fgsm", "pgd"))
    check_positive("radius", radius)
    check_shape("x", x, "n")
    x, direction = x.detach(), direction.detach()
    move = torch.zeros_like(x)
    count, length = (1, radius) if method == "fgsm" else (steps, 2.5 * radius / steps)
    for k in range(count):
        with torch.enable_grad():
            moved = (x + move).requires_grad_()
            (slope,) = torch.autograd.grad((direction * phi(moved)).sum(), moved)
        check_finite("gradient of phi", slope, step=k)
        move = (move + length * slope.sign()).clamp(-radius, radius)
        if bounds is not None:
            move = clip(x + move, bounds) - x
    return move


def clip(x: Tensor, bounds: Bounds | None) -> Tensor:
    """Bring a point into its box."""
    if bounds is None:
        return x
    low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in bounds)
    return torch.minimum(torch.maximum(x, low), high)
