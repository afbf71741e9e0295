"""Optimizers by name: which method trains, on the engine's loss, gradient and Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from solvers.core import SettingsError
from solvers.optim import DiffGrad, GaussNewton, SelfScaledBroyden
from solvers.pinn._arguments import check_optimizer
from solvers.training import FirstOrder, Method, Objective, Phase, Search

__all__ = ["Optimizer", "make_schedule"]

Optimizer: TypeAlias = str | Phase | Sequence[str | Phase]
"""A name, a phase of a training, or several of them, one after the other."""

_PATIENCE = 500
"""Steps without progress after which a named phase gives way to the next."""

_MEMORY = 50
"""Pairs that L-BFGS keeps."""


def _first_order(make: Callable[..., Any], **settings: Any) -> Callable[[Objective], Method]:
    return lambda objective: FirstOrder(objective, partial(make, **settings))


def _gauss_newton(**settings: Any) -> Callable[[Objective], Method]:
    def method(objective: Objective) -> Method:
        if objective.linearize is None:
            raise SettingsError(
                "optimizer: needs Jacobians, which this training does not have; expected a "
                "quasi-Newton or first-order method, as 'self-scaled-broyden' or 'adam'"
            )
        return Search(objective, partial(GaussNewton, linearize=objective.linearize, **settings))

    return method


_METHODS: dict[str, Callable[[Objective], Method]] = {
    "self-scaled-broyden": lambda objective: Search(objective, SelfScaledBroyden),
    "levenberg-marquardt": _gauss_newton(damping="nielsen"),
    "gns": _gauss_newton(damping="gain"),
    "natural-gradient": _gauss_newton(damping="natural"),
    "lbfgs": _first_order(
        torch.optim.LBFGS, max_iter=1, max_eval=25, history_size=_MEMORY,
        line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0,
    ),
    "adam": _first_order(torch.optim.Adam, lr=1e-3),
    "diffgrad": _first_order(DiffGrad, lr=2e-3),
}  # fmt: skip


def make_schedule(optimizer: Optimizer) -> tuple[Phase, ...]:
    """Make the phases of a training.

    Args:
        optimizer: ``"self-scaled-broyden"``, ``"levenberg-marquardt"``, ``"gns"``
            (gradient-normalized smoothness), ``"natural-gradient"``, ``"lbfgs"``, ``"adam"``,
            ``"diffgrad"``; a phase of one's own, or several of these. A named phase but the last
            ends when the loss has not fallen by a hundredth over 500 steps.

    Returns:
        The phases in order.

    Raises:
        SettingsError: If a name is unknown, with the nearest one, or there is none.

    Example:
        >>> [phase.name for phase in make_schedule(["adam", "lbfgs"])]
        ['adam', 'lbfgs']
    """
    wanted: list[Any] = [optimizer]
    if isinstance(optimizer, Iterable) and not isinstance(optimizer, str):
        wanted = list(optimizer)
    if not wanted:
        raise SettingsError("optimizer: got none, expected at least one name or phase")
    last = len(wanted) - 1
    return tuple(
        _phase(one, None if place == last else _PATIENCE) for place, one in enumerate(wanted)
    )


def _phase(one: Any, patience: int | None) -> Phase:
    if isinstance(one, Phase):
        return one
    if not isinstance(one, str):
        raise SettingsError(
            f"optimizer: got {one!r}, expected a name, as 'self-scaled-broyden' or 'adam', or for "
            "another method Phase(name='SGD', method=lambda o: FirstOrder(o, torch.optim.SGD)) of "
            "solvers.training"
        )
    check_optimizer(one, _METHODS)
    return Phase(name=one, method=_METHODS[one], patience=patience)
