r"""Weights by the neural tangent kernel: all terms fall at the same mean rate.

Under gradient flow the residuals of a term obey :math:`\dot r_i = -K_{ii} r_i - \ldots` with
:math:`K_{ii} = J_i J_i^\top`, whose trace is the sum of their rates. The weights are

.. math:: \lambda_i = \frac{\sum_j \operatorname{tr} K_{jj}}{\operatorname{tr} K_{ii}}.

Rows of :math:`J_i` hold one over the root of the number of points, so that traces are means over
the points of a term.

Reference: Wang, Yu and Perdikaris (2022), When and why PINNs fail to train: a neural tangent kernel
perspective, section 6, equations 6.5 and 6.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solvers.pinn._balance import BalancedWeights
from solvers.pinn._weights import Linearized

__all__ = ["TangentKernelWeights"]


@dataclass(eq=False)
class TangentKernelWeights(BalancedWeights):
    """Weights of all terms that make their residuals fall alike under gradient descent.

    Args:
        memory: Share of the old weight in the new one.

    Example:
        >>> TangentKernelWeights().settings
        {'name': 'tangent kernel', 'memory': 0.0}
    """

    memory: float = 0.0
    name = "tangent kernel"

    def wanted(self, terms: Sequence[Linearized]) -> Mapping[str, float]:
        """Trace of all over the trace of each."""
        traces = {term.name: float(term.jacobian.square().sum()) for term in terms}
        total = sum(traces.values())
        return {name: total / max(trace, 1e-300) for name, trace in traces.items()}
