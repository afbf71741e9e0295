"""Which labels a domain needs: faces that labels keep to, and places outside that flow in.

A periodic axis has periodic labels. At a wall nothing crosses, and labels that begin there stay.
Through an open face labels come in that began outside: characteristics from points of that face
back to the start tell how far, and the initial state is continued to there. That is right if the
values given on the face are the ones that flow in, which is checked along the characteristics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_kind
from solvers.ode import integrate
from solvers.pde import Box, Condition, Dirichlet, Initial, Periodic, Problem, unit_points
from solvers.pinn._given import function_of
from solvers.pinn._labels import (
    LABELS,
    POSITIONS,
    Formulation,
    Transport,
    label_equations,
)

__all__ = ["LabelDomain", "Side", "label_domain", "label_problem"]

Side: TypeAlias = Literal["lower", "upper"]

_SIDES: tuple[Side, Side] = ("lower", "upper")
_FACE_POINTS, _CORNER_TIMES = 64, 65
_MARGIN = 0.03
"""Room beyond the farthest label, over the width of the domain."""

_MISMATCH = 1e-3
"""Greatest difference of given and carried values on an open face, over the range of the state."""


@dataclass(frozen=True, eq=False)
class LabelDomain:
    """Labels of a problem.

    Attributes:
        box: Range of the labels and time.
        periods: Length of each axis in space; 0 if it is not periodic.
        walls: Axis and side of the faces that labels keep to, with the state there, None if it
            follows from the flow.
    """

    box: Box
    periods: tuple[float, ...]
    walls: Mapping[tuple[int, Side], float | None]

    def wrap(self, places: Float[Tensor, "N d"], problem: Problem) -> Float[Tensor, "N d"]:
        """Bring places back into the domain along periodic axes."""
        columns = list(places.unbind(1))
        for a, period in enumerate(self.periods):
            if period:
                lower = problem.domain.bounds[problem.domain.axes[a]][0]
                columns[a] = lower + torch.remainder(columns[a] - lower, period)
        return torch.stack(columns, 1)


def label_domain(
    transport: Transport,
    given: Mapping[str, Sequence[float]] | None = None,
    *,
    is_checked: bool = False,
) -> LabelDomain:
    """Find the labels that a problem needs.

    Args:
        transport: The equation.
        given: Range of the labels along axes in space, where it is not to be found.
        is_checked: Whether it is known that what flows in is right.

    Returns:
        Their range, periods and walls.

    Raises:
        SettingsError: If a condition has no meaning for labels, something diffuses through an open
            face, or what flows in is not the continued initial state.
    """
    domain = transport.problem.domain
    axes = domain.axes[:-1]
    rings = _rings(transport.problem)
    lengths = dict(zip(axes, (domain.upper - domain.lower).tolist(), strict=False))
    periods = tuple(lengths[axis] if axis in rings else 0.0 for axis in axes)
    faces = [(a, side) for a, axis in enumerate(axes) if axis not in rings for side in _SIDES]
    walls = {face: _wall_value(transport, *face) for face in faces if _is_wall(transport, *face)}
    open_faces = [face for face in faces if face not in walls]
    known = {} if given is None else given
    _check_given(transport, known, rings, walls)
    ranges = {axis: [float(end) for end in known.get(axis, domain.bounds[axis])] for axis in axes}
    if open_faces and not is_checked:
        _check_open(transport, open_faces)
        points = torch.cat([_face(transport, *face) for face in open_faces])
        origins = _origins(transport, points)
        _check_inflow(transport, open_faces, points, origins)
        _widen(transport, origins, [axis for axis in axes if axis not in known], ranges)
    bounds: dict[str, tuple[float, float]] = {
        label: (ranges[axis][0], ranges[axis][1])
        for label, axis in zip(LABELS[: len(axes)], axes, strict=True)
    }
    return LabelDomain(Box(**bounds, t=domain.bounds["t"]), periods, walls)


def _rings(problem: Problem) -> set[str]:
    """Periodic axes of a problem whose conditions all have a meaning for labels."""
    for condition in problem.conditions:
        if not isinstance(condition, Initial | Periodic | Dirichlet):
            raise SettingsError(
                f"{problem.name}: condition {condition.label!r}, expected initial, periodic or "
                "Dirichlet ones; take PINN"
            )
    return {c.axis for c in problem.conditions if isinstance(c, Periodic)}


def _check_given(
    transport: Transport,
    given: Mapping[str, Sequence[float]],
    rings: set[str],
    walls: Mapping[tuple[int, Side], float | None],
) -> None:
    """Refuse ranges of labels that are none, or that move a wall."""
    check_kind("labels", given, Mapping, "ends by axis, as in {'x': (-1.0, 2.0)}, or None")
    domain = transport.problem.domain
    allowed = [axis for axis in domain.axes[:-1] if axis not in rings]
    for axis, ends in given.items():
        is_pair = isinstance(ends, Sequence) and len(ends) == 2
        is_number = is_pair and all(isinstance(end, Real) for end in ends)
        if axis not in allowed or not is_number or not ends[0] < ends[1]:
            raise SettingsError(
                f"labels: got {axis}={ends!r}, expected lower and upper end for some of "
                f"{', '.join(allowed) or 'none'}"
            )
    for a, side in walls:
        axis, k = domain.axes[a], _SIDES.index(side)
        if axis in given and given[axis][k] != domain.bounds[axis][k]:
            raise SettingsError(
                f"labels: got {axis} from {given[axis][0]:g} to {given[axis][1]:g}, expected its "
                f"{side} end at the wall, {domain.bounds[axis][k]:g}"
            )


def _face(transport: Transport, a: int, side: Side) -> Float[Tensor, "N D"]:
    domain = transport.problem.domain
    assert isinstance(domain, Box)
    unit = unit_points("sobol", _FACE_POINTS, domain.dimension)
    # corners, from where characteristics reach farthest
    ends = [torch.tensor([0.0, 1.0], dtype=torch.float64)] * (domain.dimension - 1)
    times = torch.linspace(0, 1, _CORNER_TIMES, dtype=torch.float64)
    corners = torch.cartesian_prod(*ends, times)
    return domain.face(domain.axes[a], side, torch.cat([unit, corners])).points


def _given_value(transport: Transport, a: int, side: Side) -> Any:
    """What a Dirichlet condition gives on a face; None without one."""
    axis = transport.problem.domain.axes[a]
    for condition in transport.problem.conditions:
        if isinstance(condition, Dirichlet) and condition.on is None:
            if condition.axis in {None, axis} and condition.side in {side, "both"}:
                return condition.values[transport.field]
    return None


def _is_wall(transport: Transport, a: int, side: Side) -> bool:
    """Whether nothing crosses a face, at the state that is given there."""
    points = _face(transport, a, side)
    value = _given_value(transport, a, side)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(len(points), generator=generator, dtype=torch.float64)
    if value is not None:
        state = _evaluate(transport, value, points)
    speed = transport.speeds(state, points.unbind(1))
    return bool((speed[:, a].abs() <= 1e-9 * (1.0 + speed.abs().max())).all())


def _evaluate(transport: Transport, value: Any, points: Tensor) -> Tensor:
    found = function_of(transport.problem, value)(list(points.unbind(1)))
    return torch.as_tensor(found, dtype=torch.float64).expand(len(points))


def _wall_value(transport: Transport, a: int, side: Side) -> float | None:
    problem, value = transport.problem, _given_value(transport, a, side)
    if value is not None and not callable(value):
        return float(value)
    if transport.is_viscous:
        what = "a function" if callable(value) else "not given"
        raise SettingsError(
            f"{problem.name}: the value on the boundary is {what}, expected a number where "
            "something diffuses; take PINN"
        )
    return None


def _check_open(transport: Transport, faces: Sequence[tuple[int, Side]]) -> None:
    problem = transport.problem
    a, side = faces[0]
    axis = problem.domain.axes[a]
    end = problem.domain.bounds[axis][_SIDES.index(side)]
    what = f"{problem.name}: something flows through the boundary at {axis} = {end:g}"
    if transport.is_viscous:
        raise SettingsError(f"{what} and diffuses, expected walls or a periodic domain; take PINN")
    if not transport.is_linear:
        raise SettingsError(
            f"{what} with a speed that depends on the state, expected walls or a periodic domain; "
            "take PINN"
        )


def _widen(
    transport: Transport, origins: Tensor, wanted: Sequence[str], ranges: dict[str, list[float]]
) -> None:
    """Make room for the origins of what comes through open faces."""
    domain = transport.problem.domain
    for axis in wanted:
        lower, upper = domain.bounds[axis]
        room = _MARGIN * (upper - lower)
        along = origins[:, domain.axis(axis)]
        least, most = float(along.min()), float(along.max())
        if least < lower:
            ranges[axis][0] = least - room
        if most > upper:
            ranges[axis][1] = most + room


def _origins(transport: Transport, points: Float[Tensor, "N D"]) -> Float[Tensor, "N d"]:
    """Where characteristics through points began."""
    places, passed = points[:, :-1], _passed(transport, points)
    origins = _carried(transport, torch.zeros_like(passed), places, points[:, -1], -passed)[1]
    if not bool(torch.isfinite(origins).all()):
        raise SettingsError(
            f"{transport.problem.name}: the speed is not finite along characteristics that come "
            "from outside the domain, expected one that is continued there; take PINN"
        )
    return origins


def _passed(transport: Transport, points: Tensor) -> Tensor:
    return points[:, -1] - transport.problem.domain.bounds["t"][0]


def _carried(
    transport: Transport, state: Tensor, places: Tensor, begin: Tensor, duration: Tensor
) -> tuple[Tensor, Tensor]:
    """State and places after a time of their own; NaN where there is no path."""
    start = torch.cat([state[:, None], places, begin[:, None], duration[:, None]], 1)

    def rate(share: Tensor, y: Tensor) -> Tensor:
        u, *place, first, length = y.unbind(1)
        speeds, _, source = transport(u, *place, first + share.view(-1) * length)
        columns = [torch.as_tensor(f, dtype=torch.float64).expand_as(u) for f in (source, *speeds)]
        rest = [torch.zeros_like(u)] * 2
        return torch.stack([*(length * column for column in columns), *rest], 1)

    path = integrate(rate, start, [0.0, 1.0], rtol=1e-6, gradient="none", on_failure="mask")
    end = torch.where(path.converged[:, None], path.value[-1], torch.nan)
    return end[:, 0], end[:, 1:-2]


def _check_inflow(
    transport: Transport, faces: Sequence[tuple[int, Side]], points: Tensor, origins: Tensor
) -> None:
    """Compare given values with the initial state that flows there."""
    problem = transport.problem
    begin = torch.full_like(points[:, -1], problem.domain.bounds["t"][0])
    state = torch.as_tensor(transport.start(list(origins.unbind(1))), dtype=torch.float64)
    state = state.expand(len(origins))
    carried, _ = _carried(transport, state, origins, begin, _passed(transport, points))
    each = len(points) // len(faces)
    for k, (a, side) in enumerate(faces):
        rows = slice(k * each, (k + 1) * each)
        value = _given_value(transport, a, side)
        if value is None:
            continue
        face, flown = points[rows], carried[rows]
        given = _evaluate(transport, value, face)
        speed = transport.speeds(given, face.unbind(1))[:, a]
        size = max(float(state.max() - state.min()), float(given.abs().max()), 1e-300)
        apart = torch.where(speed > 0 if side == "lower" else speed < 0, flown - given, 0.0).abs()
        if not bool(apart.max() <= _MISMATCH * size):
            worst = int(apart.nan_to_num(torch.inf).argmax())
            where = ", ".join(
                f"{axis} = {x:.3g}"
                for axis, x in zip(problem.domain.axes, face[worst].tolist(), strict=True)
            )
            raise SettingsError(
                f"{problem.name}: what flows through the boundary at {where} is "
                f"{float(flown[worst]):.3g} by the initial state and {float(given[worst]):.3g} by "
                "the condition there, expected the same; take PINN"
            )


def label_problem(transport: Transport, labels: LabelDomain, formulation: Formulation) -> Problem:
    """Write a transport equation for positions and state over labels.

    Args:
        transport: The equation.
        labels: Its labels.
        formulation: How they move.

    Returns:
        The problem, of fields ``X``, ``W`` on a line and ``X``, ``Y``, ``W`` in a plane.
    """
    name = f"{transport.problem.name} in labels"
    bounds = {axis: labels.box.bounds[axis] for axis in labels.box.axes[:-1]}
    conditions: list[Condition] = [
        Periodic(axis, order=int(transport.is_viscous), rise={position: period})
        for axis, position, period in zip(bounds, POSITIONS, labels.periods, strict=False)
        if period
    ]
    for (a, side), value in labels.walls.items():
        axis = LABELS[a]
        held: dict[str, Any] = {POSITIONS[a]: bounds[axis][_SIDES.index(side)]}
        if value is not None:
            held["W"] = value
        conditions.append(Dirichlet(axis=axis, side=side, **held))
    if transport.dimension == 1:
        start = Initial(X=lambda xi: xi, W=lambda xi: transport.start([xi]))
        return Problem(
            name, domain=labels.box, fields=("X", "W"), conditions=[start, *conditions],
            residual=lambda X, W, t: label_equations(transport, formulation, [X], W, t),
        )  # fmt: skip
    start = Initial(
        X=lambda xi: xi, Y=lambda eta: eta, W=lambda xi, eta: transport.start([xi, eta])
    )
    return Problem(
        name, domain=labels.box, fields=("X", "Y", "W"), conditions=[start, *conditions],
        residual=lambda X, Y, W, t: label_equations(transport, formulation, [X, Y], W, t),
    )  # fmt: skip
