r"""Design through a neural surrogate: :math:`\max f(\Phi(x))` with :math:`c(x, \Phi(x)) \le 0`.

The hybrid attacks first: the attack operator moves the input so that the output goes along
:math:`u = \nabla f(\Phi(x))`. An attack with a relative gain of :math:`10^{-3}` is taken and its
radius grows by 1.3; a smaller gain is taken, its radius grows by 1.1, and a step of direct search
follows; a failed attack shrinks the radius by 1.3 and direct search takes over. Constraints become
a penalty :math:`f - \|\max(c, 0)\|^2`.

A surrogate is only as good as its data, and an attack is how one finds where it is wrong: give
``true_objective`` and a point becomes the incumbent only if it is better there as well.

With a smooth surrogate whose gradients are at hand, ``"lbfgsb"`` is usually best; attacks and
direct search are for kinks, plateaus and black boxes.

Reference: Bouchet & Vidal 2025, "Optimization by directional attacks: solving problems with
neural network surrogates", hybrid method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    Report,
    SettingsError,
    Solution,
    Status,
    check_choice,
    check_finite,
    check_positive,
    check_shape,
)
from solvers.optim._attack import AttackMethod, Bounds, attack, clip
from solvers.optim._direct_search import DirectSearch, Poll

__all__ = ["Design", "DesignMethod", "maximize_through_surrogate"]

DesignMethod = Literal["hybrid", "attack", "cdsm", "rls", "lbfgsb", "cobyqa"]
_SUFFICIENT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design(Solution[Tensor]):
    """The best input found.

    Attributes:
        score: Of the surrogate, penalties included.
        true_score: Of the true objective, NaN without one.
        history: Passes used and best score after each improvement.
    """

    score: float
    true_score: float
    history: tuple[tuple[int, float], ...]

    def best_at(self, passes: int) -> float:
        """Best score within a number of passes."""
        return max((score for used, score in self.history if used <= passes), default=-math.inf)


class _BudgetSpent(Exception):
    pass


@dataclass(slots=True, kw_only=True, eq=False)
class _Evaluator:
    """Counts passes and keeps the incumbent."""

    f: Callable[[Tensor], Tensor]
    phi: Callable[[Tensor], Tensor]
    constraints: Callable[[Tensor, Tensor], Tensor] | None
    bounds: Bounds | None
    budget: int
    true_objective: Callable[[Tensor], float] | None
    forward: int = 0
    backward: int = 0
    true: int = 0
    refused: int = 0
    flat: int = 0
    best: Tensor = field(default_factory=lambda: torch.empty(0))
    best_score: float = -math.inf
    best_true: float = -math.inf
    history: list[tuple[int, float]] = field(default_factory=list)

    def count(self, forward: int, backward: int = 0) -> None:
        """Spend passes; ends the search when too few are left."""
        if self.forward + self.backward + forward + backward > self.budget:
            raise _BudgetSpent
        self.forward += forward
        self.backward += backward

    def score_of(self, x: Tensor, y: Tensor) -> Tensor:
        score = self.f(y)
        if self.constraints is not None:
            score = score - torch.relu(self.constraints(x, y)).square().sum()
        return score

    def __call__(self, x: Tensor) -> float:
        """Score of a point clipped to its box; minus infinity if the true objective disagrees."""
        self.count(1)
        x = clip(x, self.bounds)
        with torch.no_grad():
            score = float(self.score_of(x, self.phi(x)))
        if not math.isfinite(score):
            return -math.inf
        if score <= self.best_score:
            return score
        if self.true_objective is not None:
            self.true += 1
            true = float(self.true_objective(x))
            if not true > self.best_true:
                self.refused += 1
                return -math.inf
            self.best_true = true
        self.best, self.best_score = x.clone(), score
        self.history.append((self.forward + self.backward, score))
        return score


def maximize_through_surrogate(
    f: Callable[[Tensor], Tensor],
    phi: Callable[[Tensor], Tensor],
    start: Float[Tensor, " n"],
    *,
    constraints: Callable[[Tensor, Tensor], Tensor] | None = None,
    bounds: Bounds | None = None,
    method: DesignMethod = "hybrid",
    attack_method: AttackMethod = "fgsm",
    poll: Poll = "2n",
    radius: float = 0.25,
    largest_radius: float = 1.0,
    smallest_radius: float = 1e-6,
    budget: int = 2000,
    true_objective: Callable[[Tensor], float] | None = None,
    seed: int = 0,
) -> Design:
    """Maximise a function of a network's output over its input.

    Args:
        f: Output ``(m,)`` to a scalar, differentiable for attacks.
        phi: Network, ``(n,)`` to ``(m,)``.
        start: First input; clipped to the bounds.
        constraints: Input and output to numbers that must not be positive; scale them so that one
            is a large violation.
        bounds: Lowest and highest input.
        method: ``"hybrid"``; or one of what it is made of and stands beside: ``"attack"``,
            ``"cdsm"`` (direct search), ``"rls"`` (random lines), ``"lbfgsb"`` (SciPy, with
            gradients through the network), ``"cobyqa"`` (SciPy, without).
        attack_method: ``"fgsm"`` or ``"pgd"``.
        poll: Directions of a poll, ``"2n"`` or ``"n+1"``.
        radius: First radius of attack and poll, and of the covering, in the input's unit.
        largest_radius: Cap of both.
        smallest_radius: Where both have converged.
        budget: Forward and backward passes of the network together.
        true_objective: Input to the number that counts, for example by simulation; asked at every
            improvement.
        seed: Of directions.

    Returns:
        The best input. Its status is ``CONVERGED`` when the radii reached their least (or SciPy
        says so), ``MAX_ITERATIONS`` when the budget was spent; counts hold ``forward``,
        ``backward``, ``true``, ``refused`` (improvements that the true objective denied) and
        ``flat`` (attacks that found no slope).

    Raises:
        SettingsError: If a setting is outside its range.
        NonFiniteError: If the score of the start is not finite.

    Example:
        >>> hill = lambda y: -(y - 0.5).square().sum()
        >>> found = maximize_through_surrogate(hill, lambda x: x, torch.zeros(2), budget=400)
        >>> bool(found.score > -1e-4)
        True
    """
    check_choice("method", method, ("hybrid", "attack", "cdsm", "rls", "lbfgsb", "cobyqa"))
    check_shape("start", start, "n")
    check_positive("radius", radius)
    if budget < 1 or not smallest_radius <= radius <= largest_radius:
        raise SettingsError(
            f"budget, radius: got {budget} and {smallest_radius} <= {radius} <= {largest_radius}, "
            "expected at least one pass and radii in this order"
        )
    evaluate = _Evaluator(
        f=f, phi=phi, constraints=constraints, bounds=bounds, budget=budget,
        true_objective=true_objective,
    )  # fmt: skip
    x = clip(start.detach(), bounds)
    value = evaluate(x)
    check_finite("score of the start", torch.tensor(value))
    generator = torch.Generator().manual_seed(seed)
    polling = DirectSearch(
        radius=radius, covering=radius, largest=largest_radius, smallest=smallest_radius, poll=poll
    )
    attacking = _Attack(attack_method, radius, largest_radius, smallest_radius)
    status, final = Status.CONVERGED, radius
    try:
        if method == "lbfgsb":
            status = _minimize_scipy(evaluate, x, "L-BFGS-B")
        elif method == "cobyqa":
            status = _minimize_scipy(evaluate, x, "COBYQA", radius)
        elif method == "rls":
            final = _random_lines(evaluate, x, value, generator, polling)
        else:
            while True:
                sufficient = False
                if method != "cdsm":
                    x, value, sufficient = attacking.step(evaluate, x, value)
                if method != "attack" and not sufficient:
                    polling, x, value = polling.step(evaluate, x, value, generator)
                    x = clip(x, bounds)
                is_done = method == "attack" or polling.is_converged
                if is_done and (method == "cdsm" or attacking.radius <= smallest_radius):
                    break
    except _BudgetSpent:
        status = Status.MAX_ITERATIONS
    final = {"attack": attacking.radius, "cdsm": polling.radius, "hybrid": polling.radius}.get(
        method, final
    )
    counted = {"forward": evaluate.forward, "backward": evaluate.backward, "true": evaluate.true,
               "refused": evaluate.refused, "flat": evaluate.flat}  # fmt: skip
    return Design(
        value=evaluate.best,
        report=Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(evaluate.forward + evaluate.backward),
            residual=torch.tensor(final, dtype=torch.float64),
            counts={name: torch.tensor(count) for name, count in counted.items()},
        ),
        score=evaluate.best_score,
        true_score=evaluate.best_true if true_objective is not None else math.nan,
        history=tuple(evaluate.history),
    )


@dataclass(slots=True, eq=False)
class _Attack:
    method: AttackMethod
    radius: float
    largest: float
    smallest: float

    def step(self, evaluate: _Evaluator, x: Tensor, value: float) -> tuple[Tensor, float, bool]:
        """Attack once; the point, its score, and whether the gain suffices to go on attacking."""
        steps = 1 if self.method == "fgsm" else 5
        evaluate.count(1 + steps, steps)
        with torch.no_grad():
            y = evaluate.phi(x)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            (u,) = torch.autograd.grad(evaluate.f(y), y)
        move = self._move(evaluate, x, u)
        if not bool(move.any()):
            evaluate.flat += 1
            self.radius = max(self.radius / 1.3, self.smallest)
            return x, value, False
        score = evaluate(x + move)
        if not score > value:
            self.radius = max(self.radius / 1.3, self.smallest)
            return x, value, False
        sufficient = score - value >= _SUFFICIENT * (abs(value) + 1e-10)
        self.radius = min(self.radius * (1.3 if sufficient else 1.1), self.largest)
        return x + move, score, sufficient

    def _move(self, evaluate: _Evaluator, x: Tensor, u: Tensor) -> Tensor:
        constraints = evaluate.constraints
        if constraints is None:
            return attack(
                evaluate.phi, x, u, self.radius, method=self.method, bounds=evaluate.bounds
            )

        def extended(z: Tensor) -> Tensor:
            y = evaluate.phi(z)
            return torch.cat([y.reshape(-1), torch.relu(constraints(z, y)).reshape(-1)])

        with torch.no_grad():
            violation = extended(x)[u.numel() :]
        direction = torch.cat([u.reshape(-1), -2.0 * violation])
        return attack(
            extended, x, direction, self.radius, method=self.method, bounds=evaluate.bounds
        )


def _random_lines(
    evaluate: _Evaluator, x: Tensor, value: float, generator: torch.Generator, search: DirectSearch
) -> float:
    radius = search.radius
    while radius > search.smallest:
        direction = torch.randn(len(x), generator=generator, dtype=torch.float64)
        direction = (radius * direction / torch.linalg.vector_norm(direction)).to(x)
        for move in (direction, -direction):
            score = evaluate(x + move)
            if score > value:
                x, value = clip(x + move, evaluate.bounds), score
                radius = min(1.5 * radius, search.largest)
                break
        else:
            radius = radius / 1.1
    return radius


def _minimize_scipy(
    evaluate: _Evaluator, x: Tensor, method: str, radius: float | None = None
) -> Status:
    from scipy.optimize import Bounds as Box
    from scipy.optimize import minimize

    box = None
    if evaluate.bounds is not None:
        low, high = (torch.as_tensor(b).double().expand(len(x)).numpy() for b in evaluate.bounds)
        box = Box(low, high)

    def value(z: Any) -> float:
        return -evaluate(torch.as_tensor(z, dtype=x.dtype))

    def value_and_slope(z: Any) -> tuple[float, Any]:
        loss = value(z)
        evaluate.count(0, 1)
        with torch.enable_grad():
            point = torch.as_tensor(z, dtype=x.dtype).requires_grad_()
            score = evaluate.score_of(point, evaluate.phi(point))
            (slope,) = torch.autograd.grad(-score, point)
        return loss, slope.double().numpy()

    first = x.double().numpy()
    if radius is None:
        found = minimize(value_and_slope, first, jac=True, method=method, bounds=box)
    else:
        options = {"initial_tr_radius": radius}
        found = minimize(value, first, method=method, bounds=box, options=options)
    return Status.CONVERGED if found.success else Status.STALLED
