"""An activation on channels, forward and in reverse, recorded once for torch and for the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solvers.derivatives._channels import ChannelPlan
from solvers.kernels import Tape, reverse, scalar

__all__ = ["ActivationProgram", "record_activation"]


@dataclass(frozen=True)
class ActivationProgram:
    """Channels through an activation.

    Inputs are ``z`` (channels of the argument), ``f`` (derivatives 1, 2, ... of the activation),
    ``a`` (weights of the collapsed channels) and, in reverse, ``g`` (cotangents of the results).

    Attributes:
        forward: Channels 1, 2, ... of the result.
        backward: Cotangents of all channels of the argument.
        order: Derivatives that the forward pass reads; the reverse one reads one more.
    """

    forward: list[Any]
    backward: list[Any]
    order: int


def record_activation(plan: ChannelPlan) -> ActivationProgram:
    """Record what an activation does to the channels of a plan."""
    tape = Tape()
    count, order = len(plan), max(1, plan.order)
    z, g = tape.inputs("z", count), tape.inputs("g", count)
    f, a = tape.inputs("f", order + 1), tape.inputs("a", plan.weights)
    forward = plan.through(z, f, a)
    bars = reverse(list(zip(forward, g[1:], strict=True)), [*z[1:], *f[:-1]])
    value = scalar.multiply(g[0], f[0])
    for bar, higher in zip(bars[count - 1 :], f[1:], strict=True):
        value = scalar.add(value, scalar.multiply(bar, higher))
    return ActivationProgram(forward, [value, *bars[: count - 1]], order)
