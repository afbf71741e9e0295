r"""Sobolev-preconditioned descent with a network for every iterate.

The preconditioned gradient :math:`w_k = (I - \Delta)^{-1}\mathcal{D}E(u_k)` is the one with

.. math:: \int w_k v + \nabla w_k \cdot \nabla v\,dx
          = \int \partial_u L\,v + \partial_p L \cdot \nabla v\,dx \quad \text{for all } v,

so that its best approximation by any set of functions is the least-squares fit of their jets
:math:`(v, \nabla v)` to the flux :math:`(\partial_u L, \partial_p L)`: no inverse and no derivative
of the flux is needed. A step draws a block of neurons, fits their outer weights, and adds them:

.. math:: u_{k+1} = u_k - \eta\, D(x) \sum_j c_j \tanh(a_j \cdot x + b_j),

with the factor D that vanishes where values are given. After k steps the iterate is a network of
one hidden layer and k blocks, as in the proof of Marwah, Lipton, Lu and Risteski (2023), where its
Barron norm is followed; here the norm is reported. If a block misses a share
:math:`\varepsilon` of the gradient, the error still falls by :math:`\rho + \eta M \varepsilon` a
step, with the rate :math:`\rho` of the exact iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    Solution,
    Status,
    apply_on_failure,
    check_count,
    check_kind,
    check_positive,
)
from solvers.derivatives import Layers
from solvers.pde import Box, Problem
from solvers.pinn._ansatz import Ansatz, make_ansatz
from solvers.pinn._arguments import check_problem, check_seed
from solvers.pinn._result import FieldNetwork
from solvers.pinn._terms import interior_program
from solvers.pinn.variational._admissible import check_energy, jets_of_ansatz
from solvers.pinn.variational._descent import observed_rate
from solvers.pinn.variational._functional import Density, Functional
from solvers.pinn.variational._quadrature import Quadrature
from solvers.pinn.variational._result import measuring_rule

__all__ = ["UnrolledDescent", "UnrolledResult"]

_CUT = 1e-6
"""Singular values of a block below so many times the largest are left out."""

_HALVINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnrolledResult(Solution[Tensor]):
    r"""A network that was built by descent; its value are the parameters.

    Attributes:
        network: The last iterate: points ``(N, d)`` to ``(N, 1)``.
        energies: Energy of every iterate, the first one included.
        gradient_norms: H1 norm of the part of the gradient that each block found.
        widths: Neurons of every iterate.
        barron_norms: Bound :math:`\\sum_j |c_j| (\\|a_j\\|_1 + |b_j|)` of every iterate, for inputs
            from -1 to 1.
        steps: Size of every step.
    """

    network: FieldNetwork
    energies: Float[Tensor, " K"]
    gradient_norms: Float[Tensor, " K"]
    widths: tuple[int, ...]
    barron_norms: Float[Tensor, " K"]
    steps: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Factor of the gradient norm a step, fitted to the second half of the iterates."""
        return observed_rate(self.gradient_norms)


@dataclass(frozen=True, slots=True)
class _Block:
    """Neurons of one step: inner weights ``(m, inputs)``, inner biases, outer weights ``(m,)``."""

    inner: Tensor
    bias: Tensor
    outer: Tensor


class UnrolledDescent:
    """The iteration.

    Args:
        problem: A problem with an energy and one field, given values on its boundary by
            construction.
        width: Neurons a step.
        step: Step size; by default 2/(m + M) with the curvature in the space of each block.
        scale: Standard deviation of inner weights and biases, for inputs from -1 to 1.
        seed: Seed of the neurons.
        rule: Points and weights; 48 Gauss points along each axis in two dimensions by default.

    Raises:
        SettingsError: If the problem is of another kind or a setting is out of range.

    Cost: a least-squares problem of ``N (1 + d)`` rows and ``width`` columns a step.

    Example:
        >>> from solvers.pde import problems
        >>> found = UnrolledDescent(problems.NonlinearElliptic(1), width=24).run(6)
        >>> found.widths, bool(found.energies.diff().max() <= 1e-12)
        ((0, 24, 48, 72, 96, 120, 144), True)
    """

    def __init__(
        self,
        problem: Problem,
        *,
        width: int = 64,
        step: float | None = None,
        scale: float = 1.0,
        seed: int = 0,
        rule: Quadrature | None = None,
    ) -> None:
        check_count("width", width)
        check_seed(seed)
        for name, value in (("scale", scale), ("step", 1.0 if step is None else step)):
            check_positive(name, value)
        if rule is not None:
            check_kind("rule", rule, Quadrature, "a Quadrature, as gauss_legendre(domain, 48)")
        self.problem, self.width, self.step = problem, width, step
        self._scale, self._seed = scale, seed
        self._ansatz = _check_problem(problem)
        self.rule = measuring_rule(problem.domain) if rule is None else rule
        self._density = Density(problem)
        check_energy(problem, self._ansatz, self.rule)
        self._layers = Layers((self._ansatz.inputs, width, 1))
        # few evaluations of many shapes: nothing to compile for
        self._functional = Functional(
            problem, self._ansatz, self._layers, self.rule, backend="sweep"
        )
        self._roots = self.rule.weights.sqrt()

    def run(
        self,
        iterations: int = 20,
        *,
        tolerance: float | None = None,
        on_failure: OnFailure = "warn",
    ) -> UnrolledResult:
        """Iterate.

        Args:
            iterations: Limit of steps, hence of blocks.
            tolerance: Stop when the norm of the gradient over the first one is below.
            on_failure: What happens when no step lowers the energy, or the limit comes before a
                tolerance that was asked for.

        Returns:
            The last iterate with the story of its energy.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and the iteration failed.
        """
        check_count("iterations", iterations)
        if tolerance is not None:
            check_positive("tolerance", tolerance)
        generator = torch.Generator().manual_seed(self._seed)
        jets = jets_of_ansatz(
            self._ansatz, self.rule.points, [lambda x: torch.zeros_like(x[0])]
        )  # fmt: skip
        blocks: list[_Block] = []
        energies, norms, barron = [self._energy(jets)], list[float](), [0.0]
        steps: list[float] = []
        status = Status.CONVERGED if tolerance is None else Status.MAX_ITERATIONS
        for _ in range(iterations):
            block, features = self._draw(generator)
            outer = self._fit(features, jets)
            change = torch.einsum("mek,m->ek", features, outer)
            norms.append(float((change * self._roots).norm()))
            if tolerance is not None and norms[-1] <= tolerance * norms[0]:
                status = Status.CONVERGED
                break
            size = self._lower(jets, change, self.step or self._best_step(features, jets))
            if size is None:
                status = Status.STALLED
                break
            moved = jets - size * change
            energy = self._energy(moved)
            if not math.isfinite(energy):
                status = Status.NON_FINITE
                break
            jets = moved
            blocks.append(_Block(block.inner, block.bias, -size * outer))
            energies.append(energy)
            barron.append(barron[-1] + _barron_norm(blocks[-1]))
            steps.append(size)
        network = self._network(blocks)
        result = UnrolledResult(
            value=network.theta.detach(),
            report=Report(
                status=torch.tensor(int(status)),
                iterations=torch.tensor(len(blocks)),
                residual=torch.tensor(norms[-1] / (norms[0] or 1.0), dtype=torch.float64),
            ),
            network=network,
            energies=torch.tensor(energies, dtype=torch.float64),
            gradient_norms=torch.tensor(norms, dtype=torch.float64),
            widths=tuple(k * self.width for k in range(len(blocks) + 1)),
            barron_norms=torch.tensor(barron, dtype=torch.float64),
            steps=tuple(steps),
        )
        what = f"unrolled descent of {self.problem.name}"
        apply_on_failure(result.report, on_failure, solution=result, what=what)
        return result

    def _energy(self, jets: Tensor) -> float:
        return float(self.rule.integrate(self._density(jets, self.rule.points)))

    def _draw(self, generator: torch.Generator) -> tuple[_Block, Tensor]:
        """New neurons with the jets of their fields, shape ``(width, 1 + d, N)``."""
        inputs = self._ansatz.inputs
        numbers = torch.randn(self.width, inputs + 1, generator=generator, dtype=torch.float64)
        inner = self._scale * numbers[:, :inputs] / math.sqrt(inputs)
        bias = self._scale * numbers[:, inputs]
        theta = torch.cat([inner.flatten(), bias, torch.zeros(self.width + 1).double()])
        first = self._layers.offsets()[1]
        parts = [
            rows[first : first + self.width] for _, rows in self._functional.tangent(theta)
        ]  # fmt: skip
        return _Block(inner, bias, torch.zeros_like(bias)), torch.cat(parts, dim=2)

    def _fit(self, features: Tensor, jets: Tensor) -> Tensor:
        """Outer weights of the gradient's best approximation."""
        flux = self._density.slopes(jets, self.rule.points)
        matrix = (features * self._roots).flatten(1).T
        target = (flux * self._roots).flatten()
        solved: Tensor = torch.linalg.lstsq(matrix, target, rcond=_CUT, driver="gelsd").solution
        return solved

    def _best_step(self, features: Tensor, jets: Tensor) -> float:
        """2/(m + M) from the curvature of the energy in H1 among fields of one block."""
        matrix = (features * self._roots).flatten(1)
        left, sizes, _ = torch.linalg.svd(matrix @ matrix.T)
        kept = sizes > 1e-10 * sizes[0]
        whiten = left[:, kept] / sizes[kept].sqrt()
        fields = torch.einsum("mek,mq->qek", features, whiten)
        curvature = self._density.curvature(jets, self.rule.points) * self.rule.weights
        bent = torch.einsum("abk,qbk->qak", curvature, fields)
        values = torch.linalg.eigvalsh(torch.einsum("qak,rak->qr", fields, bent))
        return 2.0 / (max(float(values[0]), 0.0) + float(values[-1]))

    def _lower(self, jets: Tensor, change: Tensor, size: float) -> float | None:
        """The size, or half, a quarter, ... of it, that does not raise the energy."""
        if self.step is not None:
            return size
        energy = self._energy(jets)
        for _ in range(_HALVINGS):
            if self._energy(jets - size * change) <= energy + 1e-14 * abs(energy):
                return size
            size /= 2
        return None

    def _network(self, blocks: Sequence[_Block]) -> FieldNetwork:
        """The blocks side by side, as one hidden layer."""
        shown = blocks or [_Block(torch.zeros(1, self._ansatz.inputs), *torch.zeros(2, 1))]
        inner = torch.cat([block.inner for block in shown]).double()
        rest = [torch.cat([b.bias for b in shown]), torch.cat([b.outer for b in shown])]
        theta = torch.cat([inner.flatten(), *rest, torch.zeros(1)]).double()
        layers = Layers((self._ansatz.inputs, len(inner), 1))
        return FieldNetwork(interior_program(self.problem, self._ansatz, layers), theta)


def _barron_norm(block: _Block) -> float:
    return float(block.outer.abs() @ (block.inner.abs().sum(1) + block.bias.abs()))


def _check_problem(problem: Problem) -> Ansatz:
    """Refuse what single blocks cannot follow."""
    check_problem(problem)
    ansatz = make_ansatz(problem)
    if len(problem.fields) != 1 or ansatz.rest or not isinstance(problem.domain, Box):
        rest = ", ".join(condition.label for condition in ansatz.rest) or "none"
        raise SettingsError(
            f"{problem.name}: got fields {', '.join(problem.fields)} with conditions that do not "
            f"hold by construction: {rest}; expected one field and none of these; take DeepRitz"
        )
    return ansatz
