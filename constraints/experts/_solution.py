"""The field of a mixture: evaluated anywhere, with its jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from constraints.experts._partition import Partition
from solvers.core import Report, SettingsError

__all__ = ["MixtureSolution"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixtureSolution:
    """Coefficients of all experts, and the field that they make.

    Attributes:
        coefficients: Shape ``(S, K, N)``, with gradients.
        report: How the items ended.
        basis: The basis.
        partition: Who is responsible where.
        condition: What the basis knows of each sample, shape ``(S, c)``.
        routing: ``"hard"`` or ``"blend"``.
    """

    coefficients: Tensor
    report: Report
    basis: nn.Module
    partition: Partition
    condition: Tensor | None
    routing: Literal["hard", "blend"]

    def __call__(self, points: Tensor, features: Sequence[str] = ("u",)) -> Tensor:
        """Evaluate the field.

        Args:
            points: Shape ``(n, d)``, inside the partition.
            features: ``"u"`` and derivatives; a blended field has no derivatives here.

        Returns:
            Shape ``(S, n, k)``.

        Raises:
            SettingsError: If a point is outside, or a derivative of a blended field is asked for.

        Gradients: of the basis's parameters, both directly and through the coefficients.
        """
        if isinstance(features, str):
            raise SettingsError(
                f"features: got {features!r}, expected a tuple of names, as ({features!r},)"
            )
        if self.routing == "blend" and tuple(features) != ("u",):
            raise SettingsError(
                f"features: got {tuple(features)} of a blended field, expected ('u',)"
            )
        phi = self.basis(points, self.condition, features).to(self.coefficients.dtype)
        if self.routing == "blend":
            weights = self.partition.blend(points)
            w = torch.einsum("pk,skn->spn", weights, self.coefficients)
        else:
            w = self.coefficients[:, self.partition.owner(points)]
        return torch.einsum("spfn,spn->spf", phi, w)

    def jump(self, features: Sequence[str] = ("u",), *, points: int = 100) -> Tensor:
        """Mean absolute jump over all interfaces, shape ``(S, k)``; zero if there are none."""
        faces = self.partition.interfaces
        total = self.coefficients.new_zeros(len(self.coefficients), len(features))
        for face in faces:
            phi = self.basis(face.points(points), self.condition, features).to(total.dtype)
            d = self.coefficients[:, face.first] - self.coefficients[:, face.second]
            total = total + torch.einsum("spfn,sn->spf", phi, d).abs().mean(1) / len(faces)
        return total
