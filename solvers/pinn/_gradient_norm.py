r"""Weights by the size of gradients: no term pulls much harder than another.

With the term of the equations :math:`L_r` and that of a condition :math:`L_i`,

.. math:: \hat\lambda_i = \frac{\max |\nabla_\theta L_r|}{\operatorname{mean} |\nabla_\theta L_i|},

followed by a running mean.

Reference: Wang, Teng and Perdikaris (2021), Understanding and mitigating gradient flow pathologies
in physics-informed neural networks, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from solvers.pinn._balance import BalancedWeights
from solvers.pinn._weights import Linearized

__all__ = ["GradientNormWeights"]


@dataclass(eq=False)
class GradientNormWeights(BalancedWeights):
    """Weights of conditions that bring their gradients to the size of the equations'.

    Args:
        memory: Share of the old weight in the new one.

    Example:
        >>> GradientNormWeights().settings
        {'name': 'gradient norm', 'memory': 0.9}
    """

    memory: float = 0.9
    name = "gradient norm"

    def wanted(self, terms: Sequence[Linearized]) -> Mapping[str, float]:
        """Largest slope of the equations over the mean one of each condition."""
        slopes = {term.name: term.jacobian.T @ term.residuals for term in terms}
        equations = torch.stack([slopes[term.name] for term in terms if term.is_equation]).sum(0)
        largest = float(equations.abs().max())
        return {
            term.name: largest / max(float(slopes[term.name].abs().mean()), 1e-300)
            for term in terms
            if not term.is_equation
        }
