r"""Self-scaled Broyden: a quasi-Newton method for ill-conditioned smooth losses.

The inverse Hessian :math:`H` follows, with :math:`s = x_{k+1} - x_k`, :math:`y = g_{k+1} - g_k`,

.. math:: H_{k+1} = \frac{1}{\tau} \Bigl[ H - \frac{Hy\,(Hy)^T}{y^T H y} + \phi\, v v^T \Bigr]
          + \frac{s s^T}{y^T s}, \qquad
          v = \sqrt{y^T H y}\, \Bigl[ \frac{s}{y^T s} - \frac{Hy}{y^T H y} \Bigr],

with scaling :math:`\tau` and Broyden parameter :math:`\phi` chosen anew at every step.

Reference: Al-Baali (1998), Numerical experience with a class of self-scaling quasi-Newton
algorithms; Urbán, Stefanou and Pons (2025), Unveiling the optimization process of physics informed
neural networks, equations 13 to 23.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from solvers.core import (
    NonFiniteError,
    OnFailure,
    Report,
    Solution,
    Status,
    apply_on_failure,
    check_positive,
)
from solvers.optim._inverse import InverseMatrix, make_inverse
from solvers.optim._line_search import wolfe_search

__all__ = ["BroydenMinimum", "SelfScaledBroyden", "minimize_broyden"]

Vector = NDArray[np.float64]

LossAndGradient = Callable[[Tensor], tuple[float, Tensor]]
"""Parameters to the loss and its gradient."""

_DECREASE, _CURVATURE = 1e-4, 0.9
"""Constants of the Wolfe conditions."""

_MOST_FAILURES = 3
_SMALL = 1e-3
"""Scale of the inverse Hessian after a line search that found nothing."""


class SelfScaledBroyden:
    """The iteration, one step at a time.

    Args:
        objective: Loss and gradient at a vector of parameters, float64.
        start: First vector, shape ``(P,)``; it is not changed.
        inverse: Storage of the inverse Hessian, the identity at first; by default the compiled one
            where it compiles.

    Attributes:
        loss: Loss at the present point.
        steps: Steps taken.
        evaluations: Evaluations of loss and gradient.
        restarts: Times that the inverse Hessian was thrown away.
        failures: Line searches in a row, up to now, that found nothing.

    Raises:
        NonFiniteError: If loss or gradient are not finite at the start.

    Cost: one evaluation or two a step, and one pass over ``P^2/2`` numbers.

    Example:
        >>> def bowl(x):
        ...     scale = torch.tensor([1.0, 1e4], dtype=torch.float64)
        ...     return float((scale * x * x).sum() / 2), scale * x
        >>> search = SelfScaledBroyden(bowl, torch.ones(2, dtype=torch.float64))
        >>> while search.gradient_norm > 1e-9:
        ...     assert search.step()
        >>> search.steps < 20
        True
    """

    def __init__(
        self,
        objective: LossAndGradient,
        start: Float[Tensor, " P"],
        *,
        inverse: InverseMatrix | None = None,
    ) -> None:
        self._objective = objective
        self._x: Vector = start.detach().to("cpu", torch.float64).numpy().copy()
        self._inverse = make_inverse(len(self._x)) if inverse is None else inverse
        self.steps = self.evaluations = self.restarts = self.failures = 0
        self._is_first = True
        self.refresh()

    @property
    def point(self) -> Float[Tensor, " P"]:
        """Copy of the present point."""
        return torch.from_numpy(self._x.copy())

    @property
    def gradient_norm(self) -> float:
        """Norm of the gradient at the present point."""
        return float(np.linalg.norm(self._g))

    def refresh(self) -> None:
        """Take in that the objective has changed, for example its points; the inverse stays.

        Raises:
            NonFiniteError: If loss or gradient are not finite at the present point.
        """
        self.loss, self._g = self._evaluate(self._x)
        if not (math.isfinite(self.loss) and np.isfinite(self._g).all()):
            raise NonFiniteError(
                f"loss is {self.loss} with gradient norm {np.linalg.norm(self._g)} at step "
                f"{self.steps}, expected finite numbers; try other initial parameters"
            )
        self._previous = self.loss + float(np.linalg.norm(self._g)) / 2
        self._hg = self._inverse.product(self._g)

    def step(self) -> bool:
        """Take one step.

        Returns:
            Whether the loss fell. After the second line search in a row that found nothing the
            inverse Hessian is a small multiple of the identity; if the third fails too, the loss
            is as low as rounding lets it be.
        """
        found = self._line_search(-self._hg)
        if found is None:
            self.failures += 1
            if self.failures > 1:
                self._restart(_SMALL / max(1.0, self.gradient_norm))
            return False
        self.failures = 0
        length, loss, x, g = found
        s, y = x - self._x, g - self._g
        ys = float(y @ s)
        hg = self._inverse.product(g)
        if ys <= 0.0:
            self._x, self._previous, self.loss, self._g = x, self.loss, loss, g
            self._restart(1.0)
        else:
            self._hg = self._update(s, y, ys, hg, g, -length * float(s @ self._g))
            self._x, self._previous, self.loss, self._g = x, self.loss, loss, g
        self.steps += 1
        return True

    def _restart(self, scale: float) -> None:
        self._inverse.reset(scale)
        self._is_first = True
        self.restarts += 1
        self._previous = self.loss + float(np.linalg.norm(self._g)) / 2
        self._hg = scale * self._g

    def _update(self, s: Vector, y: Vector, ys: float, hg: Vector, g: Vector, sbs: float) -> Vector:
        """Change the inverse Hessian; returns its product with the new gradient ``g``."""
        hy = hg - self._hg
        yhy = float(y @ hy)
        tau, phi = scaling(yhy / ys, sbs / ys, len(s), is_first=self._is_first)
        of_hy, mixed = (phi - 1.0) / (yhy * tau), -phi / (ys * tau)
        of_s = phi * yhy / (ys * ys * tau) + 1.0 / ys
        p, q = of_hy * hy + mixed * s, mixed * hy + of_s * s
        self._inverse.change(1.0 / tau, hy, p, s, q)
        self._is_first = False
        result: Vector = hg / tau + hy * float(p @ g) + s * float(q @ g)
        return result

    def _evaluate(self, x: Vector) -> tuple[float, Vector]:
        self.evaluations += 1
        loss, gradient = self._objective(torch.from_numpy(x))
        return float(loss), gradient.detach().to("cpu", torch.float64).numpy()

    def _line_search(self, direction: Vector) -> tuple[float, float, Vector, Vector] | None:
        """Search for a point that satisfies the Wolfe conditions: length, loss, point, gradient."""
        slope = float(direction @ self._g)
        if not slope < 0.0:
            return None
        last: list[tuple[float, Vector, Vector]] = []

        def along(length: float) -> tuple[float, float]:
            x = self._x + length * direction
            loss, g = self._evaluate(x)
            last[:] = [(loss, x, g)]
            return loss, float(g @ direction)

        # As far as the last step would have come on a parabola, and no further than one.
        first = min(1.0, 2.02 * (self.loss - self._previous) / slope)
        length = wolfe_search(
            along, self.loss, slope, first if first > 0.0 else 1.0,
            decrease=_DECREASE, curvature=_CURVATURE,
        )  # fmt: skip
        if length is None:
            return None
        loss, x, g = last[0]
        if not np.isfinite(g).all() or loss > self.loss:
            return None
        return length, loss, x, g

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the objective: tensors and numbers."""
        return {
            "point": self.point,
            "gradient": torch.from_numpy(self._g.copy()),
            "direction": torch.from_numpy(self._hg.copy()),
            **self._inverse.state(),
            "losses": [self.loss, self._previous],
            "counts": [
                self.steps, self.evaluations, self.restarts, self.failures, int(self._is_first),
            ],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the objective must be what it was."""
        self._x, self._g = state["point"].numpy().copy(), state["gradient"].numpy().copy()
        self._hg = state["direction"].numpy().copy()
        self._inverse.load(state)
        self.loss, self._previous = state["losses"]
        *counts, is_first = state["counts"]
        self.steps, self.evaluations, self.restarts, self.failures = counts
        self._is_first = bool(is_first)


def scaling(h: float, b: float, size: int, *, is_first: bool) -> tuple[float, float]:
    r"""Choose scaling and Broyden parameter.

    Args:
        h: :math:`y^T H y / y^T s`.
        b: :math:`s^T H^{-1} s / y^T s`.
        size: Number of parameters.
        is_first: Whether the inverse Hessian is a multiple of the identity.

    Returns:
        :math:`\tau` and :math:`\phi`.
    """
    # b h >= 1 by Cauchy and Schwarz; near convergence rounding takes it below
    a = max(b * h - 1.0, 1e-14)
    root = math.sqrt(a / (1.0 + a))
    lowest = min(1.0, h * (1.0 - root))
    theta = max((lowest - 1.0) / a, min(1.0 / lowest, (1.0 - b) / b))
    sigma = 1.0 + theta * a
    if is_first:
        tau = h / sigma
    else:
        spread = abs(sigma) ** (1.0 / (1.0 - max(size, 2)))
        ratio = min(1.0, 1.0 / b)
        tau = min(ratio * spread, sigma) if theta <= 0.0 else ratio * min(spread, 1.0 / theta)
    return tau, (1.0 - theta) / sigma


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BroydenMinimum(Solution[Tensor]):
    """A minimiser found by `minimize_broyden`.

    Attributes:
        loss: Loss there.
    """

    loss: float


def minimize_broyden(
    objective: LossAndGradient,
    start: Float[Tensor, " P"],
    *,
    iterations: int = 1000,
    tolerance: float = 1e-8,
    target: float | None = None,
    seconds: float | None = None,
    on_failure: OnFailure = "raise",
) -> BroydenMinimum:
    """Minimise a smooth function by self-scaled Broyden steps.

    Args:
        objective: Loss and gradient at a vector of parameters.
        start: First vector, shape ``(P,)``.
        iterations: Limit of steps.
        tolerance: Norm of the gradient over the first one.
        target: Stop as soon as the loss is below.
        seconds: Limit of CPU time [s].
        on_failure: What happens when the search ends elsewhere than at the tolerance or target.

    Returns:
        The last point; the report's residual is the gradient's norm over the first one, its counts
        hold ``evaluations`` and ``restarts``.

    Raises:
        NotConvergedError: If a limit came first or three line searches in a row found nothing, and
            ``on_failure="raise"``.
        NonFiniteError: If loss or gradient are not finite at the start.

    Example:
        >>> bowl = lambda x: (float((x - 3).square().sum()), 2 * (x - 3))
        >>> solution = minimize_broyden(bowl, torch.zeros(2, dtype=torch.float64))
        >>> [round(float(x), 6) for x in solution.value]
        [3.0, 3.0]
    """
    check_positive("iterations", iterations)
    search = SelfScaledBroyden(objective, start)
    first, begun = search.gradient_norm, time.process_time()
    status = Status.MAX_ITERATIONS
    while True:
        is_done = search.gradient_norm <= tolerance * first
        if is_done or (target is not None and search.loss < target):
            status = Status.CONVERGED
            break
        if search.failures == _MOST_FAILURES:
            status = Status.STALLED
            break
        is_late = seconds is not None and time.process_time() - begun >= seconds
        if search.steps >= iterations or is_late:
            break
        search.step()
    result = BroydenMinimum(
        value=search.point,
        report=Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(search.steps),
            residual=torch.tensor(search.gradient_norm / (first or 1.0), dtype=torch.float64),
            counts={
                "evaluations": torch.tensor(search.evaluations),
                "restarts": torch.tensor(search.restarts),
            },
        ),
        loss=search.loss,
    )
    apply_on_failure(result.report, on_failure, solution=result, what="minimize_broyden")
    return result
