r"""Experts held together: continuity of value and flux at interfaces, as one small system.

All experts share one basis, so a jump at an interface is that of coefficients,
:math:`[u] = \sum_n (w_{an} - w_{bn})\, b_n`, and the mean square of value and scaled flux over the
interface is a quadratic form in the difference alone,

.. math:: E = \tfrac12 (w_a - w_b)^\top G\, (w_a - w_b), \qquad
          G = \frac{\gamma}{n} \sum_i \sum_k s_k^2\, \phi_{ik} \phi_{ik}^\top .

Normal equations of all experts together are then blocks of size ``N`` on the diagonal, which
experts compute where they are, and blocks :math:`\pm G` between neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from constraints.experts._basis import derivative_axes
from constraints.experts._partition import Interface, Partition
from solvers.core import SettingsError
from solvers.nonlinear import LeastSquaresProblem, NormalEquations

__all__ = ["Continuity", "GatheredProblem"]

Basis = Callable[[Tensor, Sequence[str]], Tensor]
Evaluate = Callable[[Tensor, Tensor, bool], Sequence[NormalEquations]]


class Continuity:
    """What shall not jump between boxes.

    Args:
        partition: Boxes.
        coordinates: Letters of the coordinates.
        features: Features that are continuous across faces normal to a coordinate, by its letter:
            ``{"x": ("u", "u_x"), "t": ("u",)}``. A derivative counts times the width of the boxes.
        weight: Factor of the mean squares.
        points: Points on each interface.

    Raises:
        SettingsError: If there are no interfaces, or a coordinate that is cut has no features.
    """

    def __init__(
        self,
        partition: Partition,
        coordinates: str,
        features: Mapping[str, Sequence[str]],
        *,
        weight: float,
        points: int,
    ):
        if not partition.interfaces:
            raise SettingsError(
                "continuity: the partition has no interfaces, expected boxes that are cut; "
                "leave continuity out"
            )
        cut = {coordinates[face.axis] for face in partition.interfaces}
        if set(features) != cut:
            raise SettingsError(
                f"continuity: got features across {sorted(features)}, expected {sorted(cut)}: the "
                "coordinates along which the partition is cut"
            )
        self.faces: list[tuple[Interface, Tensor, tuple[str, ...], Tensor]] = []
        for face in partition.interfaces:
            names = tuple(features[coordinates[face.axis]])
            orders = [len(derivative_axes(name, coordinates)) for name in names]
            scale = torch.tensor([face.width**order for order in orders], dtype=torch.float64)
            places = face.points(points)
            self.faces.append((face, places, names, scale * (weight / len(places)) ** 0.5))
        self.experts = partition.experts

    def matrices(self, basis: Basis) -> list[Tensor]:
        """The matrix G of each interface, shape ``(S, N, N)``, differentiable in the basis."""
        matrices = []
        for _, points, names, scale in self.faces:
            rows = (basis(points, names) * scale[:, None]).flatten(1, 2)
            matrices.append(rows.mT @ rows)
        return matrices

    def gradient(self, matrices: Sequence[Tensor], w: Tensor) -> Tensor:
        """Gradient of the energy at ``w`` of shape ``(S, K, N)``, the same shape."""
        parts = [torch.zeros_like(w[:, 0]) for _ in range(self.experts)]
        for (face, *_), G in zip(self.faces, matrices, strict=True):
            pull = (G @ (w[:, face.first] - w[:, face.second])[..., None])[..., 0]
            parts[face.first] = parts[face.first] + pull
            parts[face.second] = parts[face.second] - pull
        return torch.stack(parts, 1)

    def add_to(self, matrices: Sequence[Tensor], blocks: Tensor) -> Tensor:
        """Put the blocks into matrices of shape ``(S, K, N, K, N)``, in place."""
        for (face, *_), G in zip(self.faces, matrices, strict=True):
            a, b = face.first, face.second
            blocks[:, a, :, a] += G
            blocks[:, b, :, b] += G
            blocks[:, a, :, b] -= G
            blocks[:, b, :, a] -= G
        return blocks


class GatheredProblem(LeastSquaresProblem):
    """All experts as one problem: blocks come from where the experts are.

    Args:
        samples: Number of samples ``S``.
        functions: Coefficients of an expert ``N``.
        evaluate: Gives the normal equations of every expert at ``w`` of shape ``(s, K, N)``.
        continuity: What holds them together.
        matrices: Its matrices.
    """

    def __init__(
        self,
        samples: int,
        functions: int,
        evaluate: Evaluate,
        continuity: Continuity,
        matrices: Sequence[Tensor],
    ):
        self.items, self.unknowns = samples, continuity.experts * functions
        self.tensors = ()
        self._shape = (continuity.experts, functions)
        self._evaluate, self._continuity = evaluate, continuity
        self._matrices = [G.detach() for G in matrices]

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some samples on all experts."""
        each = w.reshape(len(w), *self._shape)
        own = self._evaluate(each, items, is_exact)
        matrices = [G[items] for G in self._matrices]
        pull = self._continuity.gradient(matrices, each)
        cost = torch.stack([one.cost for one in own]).sum(0) + 0.5 * (pull * each).sum((1, 2))
        gradient = torch.stack([one.gradient for one in own], 1) + pull
        return NormalEquations(
            cost, gradient.flatten(1), self.assemble([o.matrix for o in own], matrices)
        )

    def assemble(self, own: Sequence[Tensor], matrices: Sequence[Tensor]) -> Tensor:
        """Blocks of the experts and of interfaces as matrices of shape ``(s, K N, K N)``."""
        samples, (experts, functions) = len(own[0]), self._shape
        blocks = own[0].new_zeros(samples, experts, functions, experts, functions)
        for k, matrix in enumerate(own):
            blocks[:, k, :, k] = matrix
        return self._continuity.add_to(matrices, blocks).reshape(
            samples, self.unknowns, self.unknowns
        )

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """There are no tensors: gradients come from the step of Newton that the mixture takes."""
        return []
