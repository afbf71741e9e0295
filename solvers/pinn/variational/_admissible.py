"""Whether an energy has a least value, one minimiser, and no others that look like it.

Looked at along a few fields that satisfy the conditions, so that a fault that only stranger fields
show passes; training then ends as ``UNBOUNDED``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import NumericalWarning, SettingsError
from solvers.pde import Dirichlet, Problem
from solvers.pinn._ansatz import Ansatz
from solvers.pinn.variational._functional import Density
from solvers.pinn.variational._quadrature import Quadrature

__all__ = ["check_energy", "jets_of_ansatz"]

_HUGE = (1e8, 1e10, 1e12)
"""Sizes of fields at which only the fastest growing part of an energy is left."""

_PAIRS = 24
_ROUNDING = 1e-9


def check_energy(problem: Problem, ansatz: Ansatz, rule: Quadrature) -> None:
    """Refuse an energy without a single least value; warn about one that is not convex.

    Args:
        problem: A problem with an energy.
        ansatz: How network outputs become fields.
        rule: Points and weights.

    Raises:
        SettingsError: If the energy falls without bound, or does not change with a constant.
    """
    energy = _Energy(problem, ansatz, rule)
    # walls that are paid for bound the energy, too
    is_bare = not any(isinstance(condition, Dirichlet) for condition in ansatz.rest)
    if is_bare:
        _check_constant(problem, energy)
        _check_bound(problem, energy)
    for a, b in _pairs(energy):
        ends, middle = (energy(a), energy(b)), energy((a + b) / 2)
        scale = sum(map(abs, ends)) + abs(middle)
        if middle > sum(ends) / 2 + _ROUNDING * scale:
            warnings.warn(
                f"{problem.name}: the energy is not convex: {middle:.4g} half way between fields "
                f"with {ends[0]:.4g} and {ends[1]:.4g}; training finds a local minimiser, compare "
                "several seeds",
                NumericalWarning,
                stacklevel=3,
            )
            return


def _pairs(energy: _Energy) -> Iterator[tuple[Tensor, Tensor]]:
    """Fields on both sides of the simplest one, then any two."""
    for shape in energy.shapes:
        for size in (0.5, 1.0, 2.0):
            yield size * shape, -size * shape
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PAIRS):
        yield energy.draw(generator), energy.draw(generator)


def _check_bound(problem: Problem, energy: _Energy) -> None:
    """Refuse an energy that falls at least as fast as the size of some field."""
    for shape in energy.shapes:
        for sign in (1.0, -1.0):
            values = [energy(sign * size * shape) for size in _HUGE]
            if all(math.isfinite(v) and v < 0 for v in values) and values[2] < 10 * values[1]:
                raise SettingsError(
                    f"{problem.name}: the energy is {values[2]:.1e} for a field of size 1e12 that "
                    "satisfies the conditions, hence falls without bound and has no minimiser; "
                    "look at the sign of the terms that grow fastest"
                )


def _check_constant(problem: Problem, energy: _Energy) -> None:
    """Refuse an energy that is linear, or the same, along a constant that no condition fixes."""
    for name, constant in energy.constants.items():
        shape = energy.shapes[1]
        values = [energy(shape + size * constant) for size in (-1.0, 0.0, 1.0)]
        bend = abs(values[0] - 2 * values[1] + values[2])
        if bend <= 1e-12 * sum(map(abs, values)):
            raise SettingsError(
                f"{problem.name}: no condition fixes {name}, and the energy does not either, as it "
                f"is linear in a constant that is added to {name}; add Dirichlet({name}=...), or a "
                f"convex term in {name}"
            )


class _Energy:
    """The energy of fields whose network part is a combination of a few waves."""

    def __init__(self, problem: Problem, ansatz: Ansatz, rule: Quadrature) -> None:
        self._density, self._rule = Density(problem), rule
        self._fields, self._count = len(problem.fields), len(rule.points)
        lower, length = problem.domain.lower, problem.domain.upper - problem.domain.lower
        self.waves = 2 + problem.domain.dimension

        def part(wave: int) -> Callable[[Sequence[Tensor]], Tensor]:
            def output(x: Sequence[Tensor]) -> Tensor:
                s = [(c - lower[i]) / length[i] for i, c in enumerate(x)]
                if wave == 0:
                    return torch.ones_like(s[0])
                if wave <= len(s):
                    return torch.cos(math.pi * s[wave - 1])
                return torch.cos(2 * math.pi * torch.stack(s).sum(0))

            return output

        zero = [lambda x: torch.zeros_like(x[0])] * self._fields
        self._base = jets_of_ansatz(ansatz, rule.points, zero)
        self._basis = []
        for field in range(self._fields):
            for wave in range(self.waves):
                functions = list(zero)
                functions[field] = part(wave)
                jets = jets_of_ansatz(ansatz, rule.points, functions)
                self._basis.append(jets - self._base)
        self.constants = {
            name: self.shapes[field * self.waves]
            for field, name in enumerate(problem.fields)
            if self._is_constant(field)
        }

    def _is_constant(self, field: int) -> bool:
        """Whether the simplest wave of a field is one everywhere, walls included."""
        value, *slopes = self._basis[field * self.waves].view(self._fields, -1, self._count)[field]
        return bool((value == 1).all()) and not any(bool(slope.any()) for slope in slopes)

    @property
    def shapes(self) -> list[Tensor]:
        """Coefficients of single waves, shape ``(fields, waves)`` each."""
        count = self._fields * self.waves
        return list(torch.eye(count, dtype=torch.float64).view(count, self._fields, self.waves))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Random coefficients of order one."""
        shape = (self._fields, self.waves)
        return 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def __call__(self, coefficients: Tensor) -> float:
        jets = self._base.clone()
        for c, part in zip(coefficients.flatten().tolist(), self._basis, strict=True):
            if c:
                jets += c * part
        return float(self._rule.integrate(self._density(jets, self._rule.points)))


def jets_of_ansatz(
    ansatz: Ansatz, points: Tensor, outputs: Sequence[Callable[[Sequence[Tensor]], Tensor]]
) -> Tensor:
    """Values and first derivatives of fields for given functions in place of network outputs.

    Args:
        ansatz: How network outputs become fields.
        points: Shape ``(N, d)``.
        outputs: Functions of the coordinates.

    Returns:
        Shape ``(fields * (1 + d), N)``.
    """
    x = [column.clone().requires_grad_() for column in points.T]
    made: list[Any] = list(ansatz.transform(x, [output(x) for output in outputs]))
    rows = []
    for value in made:
        field = torch.as_tensor(value, dtype=torch.float64).expand(len(points))
        slopes = [torch.zeros_like(field) for _ in x]
        if field.requires_grad:
            slopes = list(torch.autograd.grad(field.sum(), x, materialize_grads=True))
        rows += [field.detach(), *slopes]
    return torch.stack(rows)
