"""Layers of a policy as the arrays that a kernel reads.

A layer maps its inputs by weights and a bias and applies an activation. Its numbers are rows, one
per output: the weights, the bias, and zeros up to a whole number of lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError
from solvers.kernels import lane_count

if TYPE_CHECKING:
    from physim.model import Model

POLICY_MOST = 1024
"""Values of all layers for which a kernel has room."""

ACTIVATIONS = {"identity": 0, "tanh": 1, "relu": 2}
"""Numbers by which kernels know activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What a policy computes: controls from chosen numbers of the state.

    Attributes:
        observe: Places in (q, v) of what the first layer sees.
        weights: Of every layer, shape ``(T, B, outputs, inputs)`` with 1 for a T or B that share.
        biases: Of every layer, shape ``(T, B, outputs)``, likewise.
        activations: Of every layer, names in `ACTIVATIONS`.
        lower: Least controls (nu,).
        upper: Greatest controls (nu,).
    """

    observe: Sequence[int]
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    activations: Sequence[str]
    lower: Tensor
    upper: Tensor

    @property
    def widths(self) -> list[int]:
        """Outputs of every layer."""
        return [weight.shape[-2] for weight in self.weights]

    @property
    def values(self) -> int:
        """Values of all layers, a constant 1 after each."""
        return len(self.observe) + 1 + sum(width + 1 for width in self.widths)

    def checked(self, model: Model, steps: int, batch: int) -> Layers:
        """These layers, if they fit a rollout.

        Raises:
            ShapeError: If inputs, outputs, time or batch do not fit.
            SettingsError: If a place does not exist.
        """
        first, last = self.weights[0].shape[-1], self.widths[-1]
        if len(self.observe) != first or last != model.nu:
            raise ShapeError(
                f"the policy maps {first} numbers to {last}, expected {len(self.observe)} to "
                f"{model.nu}"
            )
        if any(not 0 <= place < model.nq + model.nv for place in self.observe):
            raise SettingsError(
                f"observe holds {list(self.observe)}, expected places in (q, v), from 0 to "
                f"{model.nq + model.nv - 1}"
            )
        for tensor in (*self.weights, *self.biases):
            if (tensor.shape[0] != 1 and tensor.shape[0] < steps) or (
                tensor.shape[1] not in (1, batch)
            ):
                raise ShapeError(
                    f"the policy's numbers are for {tensor.shape[0]} steps of {tensor.shape[1]} "
                    f"items, expected 1 or {steps} steps and 1 or {batch} items"
                )
        return self

    @property
    def fits(self) -> bool:
        """Whether a kernel has room for all values."""
        return self.values <= POLICY_MOST

    def flat(self) -> Tensor:
        """All numbers in the order in which a kernel reads them (T, B, P), differentiable."""
        lanes, rows = lane_count(), []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            both = torch.broadcast_shapes(weight.shape[:-1], bias.shape)
            row = torch.cat(
                [weight.expand(*both, -1), bias.expand(both)[..., None]], dim=-1
            ).double()
            row = torch.nn.functional.pad(row, (0, -row.shape[-1] % lanes))
            rows.append(row.flatten(-2))
        outer = torch.broadcast_shapes(*(row.shape[:2] for row in rows))
        return torch.cat([row.expand(*outer, -1) for row in rows], dim=-1)

    def table(self, flat: Tensor) -> LayerTable:
        """Arrays of a call; ``flat`` holds the numbers of its steps (T or 1, B or 1, P)."""
        steps, batch, size = flat.shape
        stride = batch * size if steps > 1 else 0
        kinds = [ACTIVATIONS[name] for name in self.activations]
        head = [len(self.weights), len(self.observe), stride, size, int(batch > 1)]
        return LayerTable(
            shape=torch.tensor([*head, *self.observe, *self.widths, *kinds], dtype=torch.int32),
            bounds=torch.cat([self.lower, self.upper]).double().contiguous(),
            weights=flat.contiguous(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """Arrays that describe a policy to a kernel.

    Attributes:
        shape: Sizes, places and activations, int32.
        bounds: Least, then greatest controls (2 nu,).
        weights: Numbers of all layers (T or 1, B or 1, P).
    """

    shape: Tensor
    bounds: Tensor
    weights: Tensor

    def span(self, first: int, last: int) -> LayerTable:
        """The arrays of some steps."""
        return replace(self, weights=self.weights[first:last]) if len(self.weights) > 1 else self


NO_POLICY = LayerTable(
    shape=torch.zeros(5, dtype=torch.int32),
    bounds=torch.zeros(1, dtype=torch.float64),
    weights=torch.zeros(1, dtype=torch.float64),
)
"""Controls are given."""
