"""What a user may hand in by mistake is refused by name, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import PhysimError
from solvers.pde import (
    Ball,
    Box,
    Data,
    Dirichlet,
    Initial,
    Mesh,
    Periodic,
    Polygon,
    Problem,
    Robin,
    derivative_name,
    evaluation_grid,
    problems,
    references,
    refine,
    resample,
    sample,
    unit_points,
    variational_problem,
)

ROD: dict[str, Any] = {
    "name": "rod",
    "domain": Box(x=(0, 1)),
    "residual": lambda u, x: u.xx + 1.0,
    "conditions": [Dirichlet(axis="x", side="both", u=0.0)],
}
DENSITY: dict[str, Any] = {
    "domain": Box(x=(0, 1)),
    "density": lambda u, x: 0.5 * u.x * u.x - u,
    "conditions": ROD["conditions"],
}
SQUARE = Box(x=(0, 1), y=(0, 1))
REGIONS = [
    SQUARE,
    Ball(1.0, x=0, y=0),
    Polygon([(0, 0), (1, 0), (0, 1)]),
    SQUARE - Ball(0.1, x=0, y=0),
]
POINTS = torch.rand(5, 2, dtype=torch.float64)


def rod(**changes: Any) -> Problem:
    return Problem(**{**ROD, **changes})


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: problems.find_problem(3), "name: got int, expected a name of problem_names"),  # type: ignore[arg-type]
    (lambda: problems.problem_settings(None), "name: got NoneType"),  # type: ignore[arg-type]
    (lambda: problems.Heat(dimension="a"), "dimension: got 'a', expected a whole number"),  # type: ignore[arg-type]
    (lambda: problems.Poisson(1.5), "dimension: got 1.5"),  # type: ignore[arg-type]
    (lambda: problems.Wave(beta="a"), "beta: got the text 'a', expected one finite number"),  # type: ignore[arg-type]
    (lambda: problems.Darcy("a"), "contrast: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: problems.Helmholtz(modes=3), "modes: got int, expected two positive"),  # type: ignore[arg-type]
    (lambda: problems.Helmholtz(modes=(1, 2, 3)), "modes: got .1, 2, 3."),  # type: ignore[arg-type]
    (lambda: problems.CylinderFlow([]), "reynolds: got list"),  # type: ignore[arg-type]
    (lambda: Ball("a", x=0), "radius: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: Ball(1.0, x=None), "x: got NoneType, expected one finite number"),  # type: ignore[arg-type]
    (lambda: Box(x=(0, "b")), "Box: x: got the text 'b'"),  # type: ignore[arg-type]
    (lambda: SQUARE.grid(1.5), "counts: got 1.5, expected a whole number"),  # type: ignore[arg-type]
    (lambda: SQUARE.face("x", "left", POINTS), "side: got 'left'"),
    (lambda: SQUARE & 3, "region: got int, expected a region"),  # type: ignore[operator]
    (lambda: Polygon("abc"), "vertices: got 'abc', expected numbers"),  # type: ignore[arg-type]
    (lambda: Polygon([(0, 0), (1, 0), (0, 1)], axes=(1, 2)), "axes: got int among them"),  # type: ignore[arg-type]
    (lambda: Mesh("a", "b"), "vertices, cells: got the text 'a', the text 'b'"),  # type: ignore[arg-type]
    (lambda: Dirichlet(axis="x", u="a"), "Dirichlet: u: got the text 'a', expected one finite"),  # type: ignore[arg-type]
    (lambda: Dirichlet(on=3, u=0.0), "Dirichlet: on: got int, expected a region"),  # type: ignore[arg-type]
    (lambda: Robin("x", a="a", u=0.0), "Robin: a: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: Initial(u=[1.0, 2.0]), "Initial: u: got list"),  # type: ignore[arg-type]
    (lambda: Periodic("x", order=1.5), "Periodic: order: got 1.5, expected a whole number"),  # type: ignore[arg-type]
    (lambda: Periodic("x", fields=3), "Periodic: fields: got int"),  # type: ignore[arg-type]
    (lambda: Data("a", u=torch.zeros(2)), "Data: points: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: Data(POINTS, u="a"), "Data: u: got the text 'a', expected a tensor"),  # type: ignore[arg-type]
    (lambda: Data(POINTS, scale="a", u=POINTS[:, 0]), "Data: scale: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: rod(domain="x"), "domain: got the text 'x', expected a solvers.pde domain"),
    (lambda: rod(residual=[]), "residual: got list, expected a function, as in lambda"),
    (lambda: rod(reference=3.0), "reference: got float"),
    (lambda: rod(fields=3), "fields: got int, expected names"),
    (lambda: rod(coefficients=[1.0]), "coefficients: got list, expected numbers by name"),
    (lambda: rod(conditions=Dirichlet(axis="x", u=0.0)), "conditions: got Dirichlet"),
    (lambda: rod(conditions=["a"]), "conditions: got the text 'a'"),
    (lambda: rod().periodic_axes("w"), "name: got 'w', expected one of 'u'"),
    (lambda: rod().place_condition(3, 5), "condition: got int"),  # type: ignore[arg-type]
    (lambda: rod().residual_terms(3, {}), "field_values: got int, expected values by name"),  # type: ignore[arg-type]
    (lambda: problems.Heat().reference_values(3), "points: got int"),  # type: ignore[arg-type]
    (lambda: variational_problem("v", **{**DENSITY, "density": 3}), "density: got int"),
    (lambda: variational_problem("v", **{**DENSITY, "domain": 3}), "domain: got int"),
    (lambda: variational_problem("v", **DENSITY, coefficients=[]), "coefficients: got list"),
    (lambda: evaluation_grid(3, 4), "problem: got int"),  # type: ignore[arg-type]
    (lambda: sample("x", 5), "domain: got the text 'x'"),  # type: ignore[arg-type]
    (lambda: sample(SQUARE, 1.5), "count: got 1.5, expected a whole number"),  # type: ignore[arg-type]
    (lambda: unit_points("sobol", 4, -1), "dimension: got -1, expected 1 or more"),
    (lambda: unit_points("sobol", 4, 2, seed="a"), "seed: got 'a', expected a whole number"),  # type: ignore[arg-type]
    (lambda: unit_points("sobol", 4, 2, generator=3), "generator: got int"),  # type: ignore[arg-type]
    (lambda: resample(POINTS, torch.ones(4), 2), r"residual: got shape \(4,\)"),
    (lambda: resample(POINTS, torch.ones(5), 2, floor="a"), "floor: got the text 'a'"),  # type: ignore[arg-type]
    (lambda: refine(POINTS, POINTS, torch.ones(5), -1), "count: got -1"),
    (lambda: derivative_name((1,), ("x", "t")), r"index: got \(1,\), expected an order for each"),
    (lambda: references.solve_periodic(3, 4, bounds=(0, 1), duration=1.0), "initial: got int"),  # type: ignore[arg-type]
    (lambda: references.cole_hopf(0, 1, nu=0.1, initial=3, potential=np.cos), "initial: got int"),  # type: ignore[arg-type]
    (
        lambda: references.solve_elliptic(np.add, np.add, bounds=3),  # type: ignore[arg-type]
        "bounds: got int, expected two axes",
    ),
    (
        lambda: references.solve_conservation_law([], np.sin, np.cos, length=1.0, duration=0.1),  # type: ignore[arg-type]
        r"averages: got shape \(0,\)",
    ),
    (
        lambda: references.GridFunction((0.0,), (1.0,), [1.0], (False,)),  # type: ignore[arg-type]
        "values: got list, expected an array",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), CASES)
def test_what_is_of_a_wrong_kind_is_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(PhysimError, match=words):
        make()


@pytest.mark.parametrize("region", REGIONS, ids=repr)
@pytest.mark.parametrize("points", [3, None, [[0.0, 0.0]], torch.zeros(2), torch.zeros(4, 3)])
def test_points_of_regions_have_one_column_per_axis(region: Any, points: Any) -> None:
    for method, name in (
        (region.contains, "points"),
        (region.surface, "unit"),
        (region.scale, "unit"),
    ):
        with pytest.raises(PhysimError, match=f"{name}: got .*expected"):
            method(points)


@pytest.mark.parametrize("region", REGIONS, ids=repr)
def test_no_points_are_no_mistake(region: Any) -> None:
    none = torch.zeros(0, 2, dtype=torch.float64)
    assert region.contains(none).shape == (0,)
    assert region.scale(none).shape == (0, 2)
    assert region.surface(none).points.shape == (0, 2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[:2], r"gave shape \(2,\) for \d points, expected one number per point"),
        (lambda x: x[:, None], r"gave shape \(\d, 1\)"),
        (lambda x: "a", "gave the text 'a', expected a number or one per point"),
        (lambda x: None, "gave NoneType"),
    ],
)
def test_what_a_function_of_points_gives_is_one_number_per_point(
    function: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(PhysimError, match=rf"Dirichlet\(u=...\): {words}"):
        rod(conditions=[Dirichlet(axis="x", u=function)])
    with pytest.raises(PhysimError, match=f"rod: reference u: {words}"):
        rod(reference=function).reference_values(POINTS[:, :1])


def test_a_rise_of_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(PhysimError, match="rise"):
        Problem(
            "line",
            domain=Box(x=(0, 1), t=(0, 1)),
            residual=lambda u: u.t - u.xx,
            conditions=[Periodic("x", rise={"v": 1.0})],
        )
