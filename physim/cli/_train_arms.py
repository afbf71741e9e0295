"""Arms of a training by name: what ``physim train pinn --arm`` makes of a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from solvers.core import SettingsError, check_choice

if TYPE_CHECKING:
    from solvers.pde import Problem

__all__ = ["ARMS", "make_solver"]

_CLASSES = {"curriculum": "Curriculum", "time-marching": "TimeMarching", "xpinn": "XPINN"}
_SAMPLING = ("adaptive", "refined", "even")
_OWN: dict[str, tuple[str, ...]] = {
    "curriculum": (),
    "time-marching": ("windows", "joint_weight"),
    "xpinn": ("interface_points",),
    "causal": ("tolerances", "slices"),
    "gradient-norm": ("memory",),
    "tangent-kernel": ("memory",),
    **dict.fromkeys(_SAMPLING, ()),
}
"""Settings of each arm that are arguments of its own class."""

ARMS = tuple(_OWN)
"""Names of the arms."""


def make_solver(
    problem: Problem,
    arms: Sequence[str],
    settings: Mapping[str, Any],
    *,
    kind: str,
    seed: int,
) -> Any:
    """Make what trains a problem.

    Args:
        problem: The problem.
        arms: Names of :data:`ARMS`; weights and one kind of sampling go with one of the others.
        settings: Arguments of the arms by name; of the curriculum, the coefficient with its values
            on the way; of XPINN, axes with their number of pieces.
        kind: ``"PINN"`` or ``"LagrangianPINN"``.
        seed: Of network and points.

    Returns:
        The network, not trained yet.

    Raises:
        SettingsError: If a name is unknown or arms exclude each other.
    """
    import solvers.pinn as networks

    for arm in arms:
        check_choice("--arm", arm, ARMS)
    whole = _at_most_one(arms, _CLASSES)
    sampling = _at_most_one(arms, _SAMPLING)
    if whole is not None and kind != "PINN":
        raise SettingsError(f"--arm: {whole} trains in the fixed frame, expected train pinn")
    _check_names(problem, arms, settings)
    options: dict[str, Any] = {"seed": seed}
    weights = [arm for arm in arms if arm not in _CLASSES and arm not in _SAMPLING]
    if weights:
        options["weights"] = [_weights(arm, settings) for arm in weights]
    if sampling is not None:
        options["sampling"] = sampling
    options |= _chosen(settings, ("reweight_every", "resample_every"))
    if whole is None:
        return getattr(networks, kind)(problem, **options)
    options |= _chosen(settings, _OWN[whole])
    if whole == "curriculum":
        options |= _curriculum(problem, settings)
    if whole == "xpinn":
        options["pieces"] = _pieces(problem, settings)
    return getattr(networks, _CLASSES[whole])(problem, **options)


def _at_most_one(arms: Sequence[str], group: Sequence[str] | Mapping[str, str]) -> str | None:
    chosen = list(dict.fromkeys(arm for arm in arms if arm in group))
    if len(chosen) > 1:
        raise SettingsError(
            f"--arm: {' and '.join(chosen)} exclude each other, expected one of {', '.join(group)}"
        )
    return chosen[0] if chosen else None


def _check_names(problem: Problem, arms: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse a setting that no chosen arm takes."""
    known = [name for arm in arms for name in _OWN[arm]]
    if "curriculum" in arms:
        known += problem.coefficients
    if "xpinn" in arms:
        known += problem.domain.axes
    if any(arm in _SAMPLING for arm in arms):
        known.append("resample_every")
    if any(arm not in _CLASSES and arm not in _SAMPLING for arm in arms):
        known.append("reweight_every")
    for name in settings:
        if not arms:
            raise SettingsError(
                f"--arm-set: got {name} without an arm, expected --arm with one of "
                f"{', '.join(ARMS)}; --set is for the problem"
            )
        check_choice("--arm-set", name, known)


def _weights(arm: str, settings: Mapping[str, Any]) -> Any:
    from solvers.pinn import LOSS_WEIGHTS

    given = _chosen(settings, _OWN[arm])
    if "tolerances" in given:
        given["tolerances"] = _several(given["tolerances"])
    return LOSS_WEIGHTS[arm](**given)


def _curriculum(problem: Problem, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The coefficient and its values on the way."""
    found = _chosen(settings, tuple(problem.coefficients))
    if len(found) != 1:
        name, value = next(iter(problem.coefficients.items()), ("beta", 30.0))
        raise SettingsError(
            f"--arm curriculum: got {len(found)} coefficients, expected one with its values before "
            f"the last stage, as in --arm-set {name}={value / 3:g},{2 * value / 3:g}"
        )
    ((coefficient, values),) = found.items()
    return {"coefficient": coefficient, "values": _several(values)}


def _pieces(problem: Problem, settings: Mapping[str, Any]) -> dict[str, int]:
    """Number of pieces along the axes that are cut."""
    pieces = _chosen(settings, problem.domain.axes)
    if not pieces:
        raise SettingsError(
            "--arm xpinn: got no axis to cut, expected axes with their number of pieces, as in "
            f"--arm-set {problem.domain.axes[-1]}=3"
        )
    return pieces


def _chosen(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _several(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
