r"""Bring one network as close to another as its symmetries allow.

Hidden units of a layer may be permuted without changing the function, and with an odd activation
(tanh, sine) each may change its sign as well. Permutations P and signs S of the hidden layers are
chosen to maximise the inner product of all parameters, one layer after the other until nothing
changes: for a layer with incoming weights W, bias b and outgoing weights V the gain of putting unit
j of the other network in place i is

.. math:: C_{ij} = w^a_i \cdot w^b_j + b^a_i b^b_j + v^a_i \cdot v^b_j

with the neighbours already placed. The assignment maximises :math:`C`, or :math:`|C|` with the sign
of the chosen entry.

Reference: Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: merging models modulo permutation
symmetries", weight matching; signs are an extension.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from solvers.core import SettingsError, check_choice

__all__ = ["Symmetry", "align"]

Symmetry = Literal["auto", "permute", "permute+sign"]
_ODD = (nn.Tanh, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink)
_ELEMENTWISE = (
    *_ODD, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Sigmoid, nn.LeakyReLU, nn.Mish,
)  # fmt: skip


def align(
    reference: nn.Sequential,
    other: nn.Sequential,
    *,
    symmetry: Symmetry = "auto",
    is_odd: bool | None = None,
    sweeps: int = 40,
) -> nn.Sequential:
    """Permute, and for odd activations flip, the hidden units of a network to match another.

    Args:
        reference: Linear layers with elementwise activations between them.
        other: The same architecture.
        symmetry: ``"permute"``, ``"permute+sign"``, or ``"auto"``, signs where all activations are
            odd.
        is_odd: Whether the activations are odd, where their classes do not tell.
        sweeps: Limit of passes over the layers.

    Returns:
        A copy of ``other`` that is the same function.

    Raises:
        SettingsError: If the architectures differ, a layer is not known, or signs are asked for
            with activations that are not odd.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> flipped = copy.deepcopy(net)
        >>> for p in (flipped[0].weight, flipped[0].bias, flipped[2].weight):
        ...     _ = p.data.neg_()
        >>> bool(torch.equal(align(net, flipped)[0].weight, net[0].weight))
        True
    """
    check_choice("symmetry", symmetry, ("auto", "permute", "permute+sign"))
    first, second = _linear_layers(reference, is_odd), _linear_layers(other, is_odd)
    shapes = [[layer.weight.shape for layer in layers] for layers in (first, second)]
    if shapes[0] != shapes[1]:
        raise SettingsError(
            f"other: has layers {[tuple(s) for s in shapes[1]]}, expected "
            f"{[tuple(s) for s in shapes[0]]} as the reference"
        )
    odd = is_odd if is_odd is not None else _has_odd_activations(other)
    if symmetry == "permute+sign" and not odd:
        raise SettingsError(
            "symmetry: got 'permute+sign' with activations that are not known to be odd, expected "
            "tanh or another odd function; pass is_odd=True if they are"
        )
    signs_too = odd and symmetry != "permute"
    moved = copy.deepcopy(other)
    layers = [layer for layer in moved if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for _ in range(sweeps):
            changes = [
                _match(first[k], first[k + 1], layers[k], layers[k + 1], signs_too)
                for k in range(len(layers) - 1)
            ]
            if not any(changes):
                break
    return moved


def _match(
    inner: nn.Linear, outer: nn.Linear, inner_moved: nn.Linear, outer_moved: nn.Linear, signs: bool
) -> bool:
    """Place the units between two layers; whether anything moved."""
    from scipy.optimize import linear_sum_assignment

    gain = inner.weight @ inner_moved.weight.T + outer.weight.T @ outer_moved.weight
    if inner.bias is not None and inner_moved.bias is not None:
        gain = gain + torch.outer(inner.bias, inner_moved.bias)
    value = gain.abs() if signs else gain
    _, chosen = linear_sum_assignment(value.double().cpu().numpy(), maximize=True)
    order = torch.as_tensor(chosen, device=gain.device)
    places = torch.arange(len(order), device=gain.device)
    sign = torch.where(gain[places, order] < 0, -1.0, 1.0).to(gain)
    if not signs:
        sign = torch.ones_like(sign)
    inner_moved.weight.copy_(sign[:, None] * inner_moved.weight[order])
    if inner_moved.bias is not None:
        inner_moved.bias.copy_(sign * inner_moved.bias[order])
    outer_moved.weight.copy_(outer_moved.weight[:, order] * sign)
    return bool((order != places).any()) or bool((sign < 0).any())


def _linear_layers(net: nn.Sequential, is_odd: bool | None) -> list[nn.Linear]:
    for layer in net:
        known = isinstance(layer, (nn.Linear, *_ELEMENTWISE)) or is_odd is not None
        has_weights = any(True for _ in layer.parameters())
        if not known or (has_weights and not isinstance(layer, nn.Linear)):
            raise SettingsError(
                f"network: holds a {type(layer).__name__}, expected nn.Linear layers with "
                "elementwise activations between them; pass is_odd for an activation of your own"
            )
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def _has_odd_activations(net: nn.Sequential) -> bool:
    return all(isinstance(layer, (nn.Linear, *_ODD)) for layer in net)
