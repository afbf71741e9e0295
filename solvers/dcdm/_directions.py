r"""The deep conjugate direction method as published: directions from a network."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.core import SettingsError, Status, check_count
from solvers.dcdm._network import DirectionNetwork
from solvers.linear import (
    Items,
    LinearOperator,
    Outcome,
    Prepared,
    check_rtol,
    runs_in_double,
    widen,
)

__all__ = ["DeepConjugateDirection"]

_LEAST_GAIN = 1e-6
_PATIENCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepConjugateDirection:
    r"""Line searches along directions that a network proposes, made conjugate to the last few.

    From the residual :math:`r` of each step, :math:`q = f(r / \|r\|)` is made A-orthogonal to the
    last ``kept`` directions, and the step along it minimises the error in the norm of ``A``, which
    therefore never grows, whatever the network does. The residual is computed anew in every step.

    That is all there is: no fallback. A network that proposes nothing useful for a residual
    proposes the same again in the next step; an item whose error has not shrunk by a millionth in
    eight steps ends as ``STALLED``.

    Args:
        network: Proposes directions; the one that comes with the package, trained on the box of 32
            cells a side, if None.
        kept: Directions to be conjugate to.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`.
        max_iterations: Limit of the directions.

    Raises:
        SettingsError: If a number is not positive (``kept``: negative).

    Cost: a step takes one pass of the network, about a thousand multigrid cycles' worth of
    operations, and two products with ``A``; memory for ``2 kept`` vectors.
    Reference: Kaneda, Akar, Chen, Trevino Kala, Hyde & Teran 2023, "A deep conjugate direction
    method for iteratively solving linear systems", algorithm 1.

    Example:
        >>> from solvers.linear import PoissonOperator, linear_solve
        >>> A = PoissonOperator.from_cells(torch.zeros(16, 16, 16), outside=2)
        >>> solver = DeepConjugateDirection(rtol=0.1)
        >>> linear_solve(A, torch.ones(16, 16, 16, dtype=torch.float64), solver).all_converged
        True
    """

    network: DirectionNetwork | None = field(default=None, compare=False)
    kept: int = 2
    rtol: float = 1e-4
    max_iterations: int = 100

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        check_count("max_iterations", self.max_iterations)
        if self.kept < 0:
            raise SettingsError(f"kept: got {self.kept}, expected zero or more directions")

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Load the network.

        Args:
            operator: Symmetric positive definite, on a grid of three axes.

        Raises:
            SettingsError: If the operator is not symmetric or has another number of axes.
        """
        if not operator.is_symmetric or len(operator.domain) != 3:
            raise SettingsError(
                f"DeepConjugateDirection: got {operator!r}, expected a symmetric operator on a "
                "grid of three axes; use ConjugateGradient"
            )
        return _PreparedDirections(operator, self)


class _PreparedDirections(Prepared):
    def __init__(self, operator: LinearOperator, solver: DeepConjugateDirection):
        super().__init__(operator, solver, "DeepConjugateDirection")
        self._plain = widen(operator.detach())
        self._plain.check()
        network = DirectionNetwork.load() if solver.network is None else solver.network
        self._network = network.to(operator.device)
        self._settings = solver

    @runs_in_double
    @torch.no_grad()
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        settings, A = self._settings, self._plain
        items = Items(A, b, settings.rtol, A.null_space())
        dot, spread = items.dot, items.spread
        x = items.start(x0)
        r = items.residual(x)
        items.observe(x, r)
        earlier: list[tuple[Tensor, Tensor, Tensor]] = []
        gained = torch.zeros_like(items.b_norm)
        idle = torch.zeros_like(items.iterations)
        for _ in range(settings.max_iterations):
            if not bool(items.running.any()):
                break
            items.iterations = items.iterations + items.running
            q = self._propose(items, r)
            for p, Ap, curvature in reversed(earlier):
                q = q - spread(dot(q, Ap) / curvature) * p
            Aq = A.apply(q)
            curvature = dot(q, Aq)
            items.demand_positive(curvature)
            curvature = torch.where(items.running, curvature, 1.0)
            along = torch.where(items.running, dot(q, r), 0.0)
            x = x + spread(along / curvature) * q
            earlier = [*earlier, (q, Aq, curvature)][-settings.kept :] if settings.kept else []
            # Twice what the square of the error in the norm of A has lost.
            gain = along.square() / curvature
            gained = gained + gain
            idle = torch.where(gain > _LEAST_GAIN * gained, 0, idle + 1)
            r = items.residual(x)
            items.observe(x, r)
            items.end(idle >= _PATIENCE, Status.STALLED)
        return items.finish(x)

    def _propose(self, items: Items, r: Tensor) -> Tensor:
        """Directions of running items; the residual itself for the others, which stay."""
        norm = items.norm(r)
        unit = r / items.spread(torch.where(norm > 0, norm, 1.0))
        unit = torch.where(items.spread(items.running), unit, 0.0)
        q = self._plain.mask(self._network(unit.float()).to(r.dtype))
        return torch.where(items.spread(items.running), q, 0.0)
