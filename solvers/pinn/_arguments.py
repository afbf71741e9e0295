"""What a user hands to a network of this room, brought to one form or refused with advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from solvers.core import SettingsError, check_choice, check_count, check_kind, describe
from solvers.parallel import Executor
from solvers.pde import Condition, Data, Problem
from solvers.pinn._causal import CausalWeights
from solvers.pinn._gradient_norm import GradientNormWeights
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._tangent_kernel import TangentKernelWeights
from solvers.pinn._weights import LossWeights

__all__ = [
    "LOSS_WEIGHTS",
    "check_determined",
    "check_executor",
    "check_optimizer",
    "check_problem",
    "check_seed",
    "network_of",
    "weights_of",
]

LOSS_WEIGHTS: Mapping[str, Callable[..., LossWeights]] = {
    "causal": CausalWeights,
    "gradient-norm": GradientNormWeights,
    "tangent-kernel": TangentKernelWeights,
}
"""Classes of adaptive weights by the names that `PINN` and the command line take."""


_LARGEST_SEED = 2**62


def check_problem(problem: object) -> None:
    """Refuse what is no problem.

    Raises:
        SettingsError: With where problems come from.
    """
    check_kind(
        "problem", problem, Problem,
        "a solvers.pde.Problem; make one of your own, or take a named one, as "
        "problems.Convection(beta=30) or problems.find_problem('convection', beta=30)",
    )  # fmt: skip


def check_determined(problem: Problem) -> None:
    """Refuse coefficients to be found where every value of them has its solution.

    That is so without data, if no condition can be left out and there are no more equations than
    fields.

    Raises:
        SettingsError: With what to add.
    """
    if not problem.unknown or len(problem.term_names) > len(problem.fields):
        return
    if any(isinstance(c, Data) or _is_spare(problem, c) for c in problem.conditions):
        return
    raise SettingsError(
        f"problem: nothing determines {', '.join(problem.unknown)} of {problem.name}, as it has no "
        "more conditions than its equation needs; add measurements, as in "
        f"Data(points, {problem.fields[0]}=values), or take it out of unknown"
    )


def _is_spare(problem: Problem, condition: Condition) -> bool:
    """Whether the problem has a solution without a condition, which then tells more."""
    rest = [other for other in problem.conditions if other is not condition]
    try:
        replace(problem, conditions=rest)
    except SettingsError:
        return False
    return True


def check_seed(seed: Any) -> None:
    """Refuse what is no seed.

    Raises:
        SettingsError: If it is no whole number, negative, or too large.
    """
    check_count("seed", seed, least=0)
    if seed > _LARGEST_SEED:
        raise SettingsError(f"seed: got {seed}, expected at most {_LARGEST_SEED}")


def check_executor(executor: object) -> None:
    """Refuse what are no workers.

    Raises:
        SettingsError: With how workers are made.
    """
    if executor is not None and not isinstance(executor, Executor):
        raise SettingsError(
            f"executor: got {describe(executor)}, expected an executor of solvers.parallel; open "
            "one around the call, as in: with RayExecutor(2) as workers: ...fit(executor=workers)"
        )


def check_optimizer(name: str, names: Iterable[str]) -> None:
    """Refuse an unknown name, with the nearest one, of which it may be a part.

    Raises:
        SettingsError: With the names that there are.
    """
    known = tuple(names)
    whole = [each for each in known if name and name.lower() in each]
    if name not in known and len(whole) == 1:
        raise SettingsError(f"optimizer: got {name!r}; did you mean {whole[0]!r}?")
    check_choice("optimizer", name, known)


def network_of(given: Any, default: MLP) -> MLP | ModifiedMLP | OwnNetwork:
    """The network that was given, a module of the user's own among them.

    Raises:
        SettingsError: If it is none.
    """
    if given is None:
        return default
    if isinstance(given, nn.Module):
        return OwnNetwork(given)
    if isinstance(given, type) or not (hasattr(given, "layers") and hasattr(given, "waves")):
        raise SettingsError(
            f"network: got {describe(given)}, expected MLP(width=16, depth=4), ModifiedMLP(...), "
            "or a torch module from points to fields in float64"
        )
    network: MLP | ModifiedMLP | OwnNetwork = given
    return network


def weights_of(given: Any) -> tuple[LossWeights, ...]:
    """Adaptive weights, alone or several, themselves or by name.

    Raises:
        SettingsError: If one is none, with the names that there are.

    Example:
        >>> [type(each).__name__ for each in weights_of("causal")]
        ['CausalWeights']
    """
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(_weights(each) for each in (given if several else (given,)))


def _weights(given: Any) -> LossWeights:
    if isinstance(given, LossWeights):
        return given
    if isinstance(given, str):
        check_choice("weights", given, LOSS_WEIGHTS)
        return LOSS_WEIGHTS[given]()
    raise SettingsError(
        f"weights: got {describe(given)}, expected CausalWeights(), GradientNormWeights(), "
        f"TangentKernelWeights(), or a name: {', '.join(LOSS_WEIGHTS)}"
    )
