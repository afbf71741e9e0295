"""What a step takes if nobody gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._assembly import no_force

if TYPE_CHECKING:
    from physim.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Inputs of a step that nobody gave.

    Attributes:
        batch: Number of items B.
        control: Zero controls (B, nu).
        force: No external force (B, nv).
        timestep: The simulator's time step for every item (B,).
        numbers: The model's own flat numbers (B, n).
    """

    batch: int
    control: Tensor
    force: Tensor
    timestep: Tensor
    numbers: Tensor

    @staticmethod
    def of(batch: int, model: Model, numbers: Tensor, timestep: float) -> Surroundings:
        """Surroundings of a batch of one model with its own flat numbers."""
        double = torch.float64
        # Whoever keeps them may differentiate later, which tensors of an inference do not allow.
        with torch.inference_mode(False):
            return Surroundings(
                batch=batch,
                control=torch.zeros(batch, model.nu, dtype=double),
                force=no_force(batch, model.nv),
                timestep=torch.full((batch,), timestep, dtype=double),
                numbers=numbers.expand(batch, -1),
            )
