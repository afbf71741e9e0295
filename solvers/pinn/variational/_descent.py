r"""Sobolev-preconditioned descent in function space, on sines: the reference for its rate.

.. math:: u_{k+1} = u_k - \eta\,(I - \Delta)^{-1}\,\mathcal{D}E(u_k), \qquad
          \mathcal{D}E(u) = \partial_u L - \nabla\cdot\partial_p L.

:math:`(I - \Delta)^{-1}\mathcal{D}E` is the gradient of E in :math:`H^1_0`, so that this is plain
gradient descent there. If the second derivative of E lies between m and M times the H1 product, it
contracts by :math:`\max(|1 - \eta m|, |1 - \eta M|)` a step, at best by :math:`(M - m)/(M + m)`
with :math:`\eta = 2/(M + m)` (Nesterov 2004, theorem 2.1.15), whatever the resolution. Where L
depends on the slope alone, with :math:`\lambda \le \partial_p^2 L \le \Lambda` and a constant C of
Poincaré's inequality :math:`\|v\|^2 \le C \|\nabla v\|^2`, that is so with
:math:`m = \lambda/(1 + C)` and :math:`M = \Lambda`.

Source: Marwah, Lipton, Lu and Risteski (2023), Neural network approximations of PDEs beyond
linearity: a representational perspective, whose proof follows these iterates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
    check_positive,
    check_shape,
)
from solvers.pde import Box, Dirichlet, Problem
from solvers.pinn._ansatz import Ansatz, make_ansatz
from solvers.pinn._arguments import check_problem
from solvers.pinn.variational._admissible import jets_of_ansatz
from solvers.pinn.variational._functional import Density
from solvers.pinn.variational._quadrature import gauss_legendre

__all__ = ["DescentResult", "SobolevDescent", "observed_rate"]

_MOST_DENSE = 700
_HALVINGS = 40
_ROUNDING = 1e-11


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescentResult(Solution[Tensor]):
    """A minimiser among sines; its value are the coefficients, one axis of modes per coordinate.

    Attributes:
        energies: Energy of every iterate, the first one included.
        gradient_norms: H1 norm of the gradient at every iterate; the report's residual is the last
            one over the first.
        step: Step size at the end.
        contraction: Foreseen factor of the error a step, from the curvature at the end.
        bounds: m and M, least and largest curvature of the energy in H1 at the end.
        descent: What made it; evaluates the field.
    """

    energies: Float[Tensor, " K"]
    gradient_norms: Float[Tensor, " K"]
    step: float
    contraction: float
    bounds: tuple[float, float]
    descent: SobolevDescent

    @property
    def rate(self) -> float:
        """Factor of the gradient norm a step, fitted to the second half of the iterates."""
        return observed_rate(self.gradient_norms)

    def __call__(self, points: Float[Tensor, "N d"]) -> Float[Tensor, " N"]:
        """Evaluate the field at points."""
        return self.descent.field(self.value, points)


class SobolevDescent:
    """The iteration on a sine basis.

    Args:
        problem: A problem with an energy and one field, given on all walls of a box of up to three
            axes.
        modes: Sines along each axis.
        step: Step size; by default 2/(m + M) with the curvature at the start, halved whenever the
            energy would rise, and chosen anew from the curvature every ten steps.

    Raises:
        SettingsError: If the problem is of another kind.

    Cost: a step takes the density at ``(4 modes + 16)^d`` points and tensor products with them.

    Example:
        >>> from solvers.pde import problems
        >>> found = SobolevDescent(problems.NonlinearElliptic(1), modes=8).solve()
        >>> found.all_converged, abs(found.rate / found.contraction - 1) < 0.05
        (True, True)
    """

    def __init__(self, problem: Problem, *, modes: int = 16, step: float | None = None) -> None:
        check_count("modes", modes)
        check_positive("step", 1.0 if step is None else step)
        ansatz = _check_problem(problem)
        self.problem, self.modes, self.step = problem, modes, step
        count = 4 * modes + 16
        self._density, self._rule = Density(problem), gauss_legendre(_box(problem), count)
        self._grid = (count,) * problem.domain.dimension
        lengths = (problem.domain.upper - problem.domain.lower).tolist()
        unit = torch.from_numpy((np.polynomial.legendre.leggauss(count)[0] + 1) / 2)
        self._sines = [_sines(unit, modes, length)[0] for length in lengths]
        self._cosines = [_sines(unit, modes, length)[1] for length in lengths]
        numbers = [math.pi / length * torch.arange(1, modes + 1).double() for length in lengths]
        squares = torch.meshgrid(*[n.square() for n in numbers], indexing="ij")
        self.h1_weights = 1.0 + torch.stack(squares).sum(0)
        self._base = jets_of_ansatz(ansatz, self._rule.points, [lambda x: torch.zeros_like(x[0])])
        self._ansatz = ansatz

    def energy(self, coefficients: Tensor) -> float:
        """The energy of a field."""
        self._check(coefficients)
        density = self._density(self._jets(coefficients), self._rule.points)
        return float(self._rule.integrate(density))

    def gradient(self, coefficients: Tensor) -> Tensor:
        r"""Coefficients of :math:`(I - \Delta)^{-1}\mathcal{D}E`."""
        self._check(coefficients)
        slopes = self._density.slopes(self._jets(coefficients), self._rule.points)
        return self._tested(slopes * self._rule.weights) / self.h1_weights

    def h1_norm(self, coefficients: Tensor) -> float:
        """Norm of a sum of sines in H1."""
        self._check(coefficients)
        return float((self.h1_weights * coefficients.square()).sum().sqrt())

    def curvature_bounds(self, coefficients: Tensor) -> tuple[float, float]:
        """Least and largest curvature of the energy in H1 at a field: m and M."""
        self._check(coefficients)
        curvature = self._density.curvature(self._jets(coefficients), self._rule.points)
        curvature = curvature * self._rule.weights
        scale = self.h1_weights.rsqrt()

        def product(v: Any) -> Any:
            vector = torch.as_tensor(v, dtype=torch.float64).reshape(self.h1_weights.shape)
            jets = self._spread(scale * vector)
            image = scale * self._tested(torch.einsum("abn,bn->an", curvature, jets))
            return image.reshape(-1).numpy()

        size = self.h1_weights.numel()
        if size <= _MOST_DENSE:
            matrix = np.stack([product(row) for row in np.eye(size)])
            values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
            return float(values[0]), float(values[-1])
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.ones(size)
        low = eigsh(operator, 1, which="SA", tol=1e-6, v0=start, return_eigenvectors=False)
        high = eigsh(operator, 1, which="LA", tol=1e-6, v0=start, return_eigenvectors=False)
        return float(low[0]), float(high[0])

    def solve(
        self,
        *,
        iterations: int = 200,
        tolerance: float = 1e-10,
        start: Tensor | None = None,
        on_failure: OnFailure = "raise",
    ) -> DescentResult:
        """Iterate.

        Args:
            iterations: Limit of steps.
            tolerance: H1 norm of the gradient over the first one.
            start: Coefficients to start from; zero by default.
            on_failure: What happens when the limit comes first, or no step lowers the energy.

        Returns:
            The last iterate with the story of its energy.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and the tolerance is not met.
        """
        check_count("iterations", iterations)
        if start is not None:
            self._check(start, "start")
        check_positive("tolerance", tolerance)
        c = torch.zeros_like(self.h1_weights) if start is None else start.double().clone()
        energies, norms = [self.energy(c)], [self.h1_norm(gradient := self.gradient(c))]
        step = self.step or _best_step(*self.curvature_bounds(c))
        status = Status.MAX_ITERATIONS
        for k in range(iterations):
            if norms[-1] <= tolerance * norms[0]:
                status = Status.CONVERGED
                break
            if self.step is None and k % 10 == 5:
                step = min(step, _best_step(*self.curvature_bounds(c)))
            taken = self._lower(c, gradient, step, energies[-1])
            if taken is None:
                status = Status.STALLED
                break
            step, moved = taken
            gradient, energy = self.gradient(moved), self.energy(moved)
            norm = self.h1_norm(gradient)
            if not (math.isfinite(energy) and math.isfinite(norm)):
                status = Status.NON_FINITE
                break
            c = moved
            energies.append(energy)
            norms.append(norm)
        else:
            if norms[-1] <= tolerance * norms[0]:
                status = Status.CONVERGED
        bounds = self.curvature_bounds(c)
        result = DescentResult(
            value=c,
            report=Report(
                status=torch.tensor(int(status)),
                iterations=torch.tensor(len(energies) - 1),
                residual=torch.tensor(norms[-1] / (norms[0] or 1.0), dtype=torch.float64),
            ),
            energies=torch.tensor(energies, dtype=torch.float64),
            gradient_norms=torch.tensor(norms, dtype=torch.float64),
            step=step,
            contraction=max(abs(1.0 - step * bound) for bound in bounds),
            bounds=bounds,
            descent=self,
        )
        what = f"Sobolev descent of {self.problem.name}"
        apply_on_failure(result.report, on_failure, solution=result, what=what)
        return result

    def field(self, coefficients: Tensor, points: Float[Tensor, "N d"]) -> Float[Tensor, " N"]:
        """Evaluate a field at points."""
        self._check(coefficients)
        check_shape("points", points, f"N {self.problem.domain.dimension}")
        domain = self.problem.domain
        unit = (points - domain.lower) / (domain.upper - domain.lower)
        lengths = (domain.upper - domain.lower).tolist()
        total = coefficients.unsqueeze(0)
        for axis, length in enumerate(lengths):
            waves = _sines(unit[:, axis], self.modes, length)[0]
            total = torch.einsum(
                "nk,nk...->n...", waves, total.expand(len(points), *total.shape[1:])
            )
        given = self._ansatz.transform(list(points.T), [torch.zeros(len(points)).double()])[0]
        return total + torch.as_tensor(given, dtype=torch.float64)

    def _check(self, coefficients: Tensor, name: str = "coefficients") -> None:
        check_shape(name, coefficients, " ".join(map(str, self.h1_weights.shape)))

    def _lower(
        self, c: Tensor, gradient: Tensor, step: float, energy: float
    ) -> tuple[float, Tensor] | None:
        """The first step of half, a quarter, ... the size that does not raise the energy."""
        if self.step is not None:
            return step, c - step * gradient
        for _ in range(_HALVINGS):
            moved = c - step * gradient
            if self.energy(moved) <= energy + _ROUNDING * abs(energy):
                return step, moved
            step /= 2
        return None

    def _jets(self, coefficients: Tensor) -> Tensor:
        return self._base + self._spread(coefficients)

    def _spread(self, coefficients: Tensor) -> Tensor:
        """Values and first derivatives of a sum of sines at the points."""
        axes = range(len(self._grid))
        rows = [_along(self._sines, coefficients)]
        for axis in axes:
            mixed = [self._cosines[i] if i == axis else self._sines[i] for i in axes]
            rows.append(_along(mixed, coefficients))
        return torch.stack([row.reshape(-1) for row in rows])

    def _tested(self, values: Tensor) -> Tensor:
        """The transpose of `_spread`: integrals against every sine."""
        axes = range(len(self._grid))
        grids = values.view(-1, *self._grid)
        total = _along([s.T for s in self._sines], grids[0])
        for axis in axes:
            mixed = [self._cosines[i].T if i == axis else self._sines[i].T for i in axes]
            total = total + _along(mixed, grids[1 + axis])
        return total


def observed_rate(norms: Float[Tensor, " K"]) -> float:
    """Factor a step of a geometric sequence, fitted to its second half above rounding."""
    usable = norms[norms > _ROUNDING * norms[0]]
    logs = usable[len(usable) // 2 :].log()
    if len(logs) < 2:
        raise SettingsError(
            f"norms: {len(norms)} numbers are too few for a rate, expected 4 or more"
        )
    steps = torch.arange(len(logs)).double()
    steps = steps - steps.mean()
    return float(((steps @ logs) / (steps @ steps)).exp())


def _best_step(low: float, high: float) -> float:
    return 2.0 / (max(low, 0.0) + high)


def _sines(unit: Tensor, modes: int, length: float) -> tuple[Tensor, Tensor]:
    r"""Sines of unit L2 norm on an axis and their slopes, shape ``(points, modes)``."""
    numbers = torch.arange(1, modes + 1).double() * math.pi
    angles = unit.double()[:, None] * numbers
    factor = math.sqrt(2.0 / length)
    return factor * angles.sin(), factor * numbers / length * angles.cos()


def _along(matrices: Sequence[Tensor], tensor: Tensor) -> Tensor:
    """Multiply each axis of a tensor by a matrix."""
    for axis, matrix in enumerate(matrices):
        tensor = torch.tensordot(matrix, tensor, dims=([1], [axis])).movedim(0, axis)
    return tensor


def _box(problem: Problem) -> Box:
    assert isinstance(problem.domain, Box)
    return problem.domain


def _check_problem(problem: Problem) -> Ansatz:
    """Refuse what sines do not span.

    Returns:
        The field that takes the given values.
    """
    check_problem(problem)
    domain = problem.domain
    kinds = {type(condition) for condition in problem.conditions}
    fits = isinstance(domain, Box) and domain.dimension <= 3 and kinds == {Dirichlet}
    ansatz = make_ansatz(problem) if fits and len(problem.fields) == 1 else None
    if ansatz is None or ansatz.rest:
        raise SettingsError(
            f"{problem.name}: got {', '.join(problem.fields)} on {domain!r} with "
            f"{', '.join(c.label for c in problem.conditions)}, expected one field with given "
            "values on all walls of a box of up to three axes; take DeepRitz"
        )
    return ansatz
