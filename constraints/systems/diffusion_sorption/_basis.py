r"""A basis that knows how diffusion begins.

The boundary value meets another initial value at :math:`t = 0`; the layer between them grows as
:math:`\sqrt t`. Beside :math:`x` the network therefore sees the similarity coordinate
:math:`x / \sqrt{t + \delta}` and :math:`\sqrt{t + \delta}`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.experts import JetBasis
from solvers.core import check_positive

__all__ = ["SimilarityBasis"]


class SimilarityBasis(JetBasis):
    """Jets of a network on ``(x, x / sqrt(t + delta), sqrt(t + delta))`` and the initial profile.

    Args:
        functions: Basis functions.
        conditions: Parameters of the initial profile.
        delta: Time from which on the layer is resolved.
        **options: As for `JetBasis`.

    Example:
        >>> basis = SimilarityBasis(4, width=8)
        >>> points = torch.rand(5, 2, dtype=torch.float64)
        >>> basis(points, torch.zeros(1, 1, dtype=torch.float64), ("u", "u_t")).shape
        torch.Size([1, 5, 2, 4])
    """

    def __init__(
        self, functions: int, *, conditions: int = 1, delta: float = 1e-2, **options: float
    ):
        check_positive("delta", delta)
        super().__init__("xt", functions, conditions=conditions, lifted=3, **options)  # type: ignore[arg-type]
        self.delta = delta

    def lift(self, points: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and their derivatives."""
        x, t = points.unbind(1)
        s = torch.sqrt(t + self.delta)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        z = torch.stack([x, x / s, s], 1)
        along_x = torch.stack([one, 1 / s, zero], 1)
        along_t = torch.stack([zero, -0.5 * x / s**3, 0.5 / s], 1)
        return z, {"x": along_x, "t": along_t}, {}
