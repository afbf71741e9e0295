"""A problem reads like its equation, runs on every kind of number, and refuses what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.kernels import Tape, evaluate
from solvers.pde import (
    Ball,
    Box,
    Data,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Polygon,
    Problem,
    Robin,
    unit_points,
)
from solvers.pde.functions import exp, pi, sin


def burgers(**changes: object) -> Problem:
    settings: dict[str, object] = {
        "name": "Burgers",
        "domain": Box(x=(-1, 1), t=(0, 1)),
        "residual": lambda u, nu: u.t + u * u.x - nu * u.xx,
        "coefficients": {"nu": 0.01},
        "conditions": [
            Initial(u=lambda x: -sin(pi * x)),
            Dirichlet(axis="x", side="both", u=0.0),
        ],
    }
    return Problem(**(settings | changes))  # type: ignore[arg-type]


def test_derivatives_are_found_by_calling_the_residual() -> None:
    problem = Problem(
        name="mixed",
        domain=Box(x=(0, 1), y=(0, 1), t=(0, 1)),
        fields=("u", "v"),
        residual=lambda u, v, x: (u.t - u.xx - u.yy + sin(v) * u.xy, v.xxt - x * v),
        conditions=[Dirichlet(u=0.0, v=0.0), Initial(u=0.0, v=0.0)],
    )
    assert problem.derivatives == {
        "u": ((0, 0, 0), (0, 0, 1), (0, 2, 0), (1, 1, 0), (2, 0, 0)),
        "v": ((0, 0, 0), (2, 0, 1)),
    }
    assert problem.term_names == ("equation 1", "equation 2")
    assert problem.is_traceable


def test_tensors_arrays_and_symbols_give_the_same_residual() -> None:
    problem = burgers(
        residual=lambda u, x, t, nu: u.t + 2 * u * u.x - nu * u.xx + exp(-t) * sin(u) / (1 + x * x)
    )
    rng = np.random.default_rng(0)
    indices = problem.derivatives["u"]
    arrays = {index: rng.normal(size=5) for index in indices}
    coordinates = {"x": rng.normal(size=5), "t": rng.normal(size=5)}
    (from_arrays,) = problem.residual_terms({"u": arrays}, coordinates)
    (from_tensors,) = problem.residual_terms(
        {"u": {k: torch.as_tensor(v) for k, v in arrays.items()}},
        {k: torch.as_tensor(v) for k, v in coordinates.items()},
        {"nu": torch.tensor(0.01, dtype=torch.float64)},
    )
    np.testing.assert_allclose(from_tensors.numpy(), from_arrays, rtol=1e-14)

    tape = Tape()
    symbols = {index: tape.input("u", k) for k, index in enumerate(indices)}
    (term,) = problem.residual_terms(
        {"u": symbols},
        {"x": tape.input("p", 0), "t": tape.input("p", 1)},
        {"nu": tape.input("c", 0)},
    )
    for k in range(5):
        (traced,) = evaluate(
            [term],
            {
                "u": [arrays[index][k] for index in indices],
                "p": [coordinates["x"][k], coordinates["t"][k]],
                "c": [0.01],
            },
        )
        assert traced == pytest.approx(from_arrays[k], rel=1e-13)


def test_coefficient_symbols_stand_on_either_side_of_a_field() -> None:
    problem = burgers(residual=lambda u, nu: nu * u + u * nu - nu / (u + 2) + u.t + nu * u.x)
    assert problem.is_traceable


def test_a_residual_in_torch_functions_runs_but_is_not_traceable() -> None:
    problem = burgers(residual=lambda u, nu: u.t + torch.sin(u) - nu * u.xx)
    assert not problem.is_traceable
    values = {index: torch.full((2,), 0.3) for index in problem.derivatives["u"]}
    (term,) = problem.residual_terms({"u": values}, {"x": 0.0, "t": 0.0})
    assert term.tolist() == pytest.approx([0.3 + math.sin(0.3) - 0.003] * 2)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"residual": lambda u, mu: u.t - mu * u.xx}, SettingsError, "'mu' is unknown"),
        ({"residual": lambda u, nu: u.t - nu * u.zz}, SettingsError, "u.zz is no derivative"),
        ({"residual": lambda u, *rest: u.t}, SettingsError, "named arguments only"),
        ({"residual": lambda nu: nu}, ShapeError, "one number per point"),
        ({"residual": lambda u: u.t.sum()}, ShapeError, "one number per point"),
        ({"unknown": ("kappa",)}, SettingsError, "'kappa' is no coefficient"),
        ({"unknown": "nu"}, SettingsError, r"as in \('nu',\)"),
        ({"coefficients": {"nu": math.nan}}, NonFiniteError, "coefficient nu"),
        ({"coefficients": {"nu": -0.1}}, SettingsError, "nu=-0.1 makes the problem ill-posed"),
        ({"coefficients": {"u": 1.0}}, SettingsError, "'u' names two"),
        ({"conditions": []}, SettingsError, "no initial condition"),
        ({"conditions": [Initial(u=0.0)]}, SettingsError, "no condition at its ends"),
        (
            {"conditions": [Initial(u=0.0), Dirichlet("x", "lower", u=0.0)]},
            SettingsError,
            "the upper end",
        ),
        (
            {"conditions": [Initial(v=0.0), Dirichlet("x", u=0.0)]},
            SettingsError,
            "field 'v' is unknown",
        ),
        (
            {"conditions": [Initial(u=0.0), Dirichlet("y", u=0.0)]},
            SettingsError,
            "expected one of x, t",
        ),
        (
            {"conditions": [Initial(u=lambda x, y: x), Dirichlet("x", u=0.0)]},
            SettingsError,
            "'y' is unknown",
        ),
        (
            {"conditions": [Initial(u=lambda x: x / 0.0 * 0.0), Dirichlet("x", u=0.0)]},
            NonFiniteError,
            "condition initial u",
        ),
        (
            {"conditions": [Data({"x": [3.0], "t": [0.5]}, u=[1.0])]},
            SettingsError,
            "off the domain",
        ),
        (
            {"conditions": [Data({"x": [0.0, 0.1], "t": [0.5]}, u=[1.0])]},
            ShapeError,
            "coordinates have lengths",
        ),
        ({"conditions": [Data(torch.zeros(3, 3), u=torch.zeros(3))]}, ShapeError, "points have"),
        ({"conditions": [Data(torch.zeros(3, 2), u=torch.zeros(4))]}, ShapeError, "one value per"),
        (
            {
                "domain": Box(x=(-1, 1)),
                "residual": lambda u: u.xx,
                "conditions": [Initial(u=0.0)],
            },
            SettingsError,
            "no time",
        ),
    ],
)
def test_bad_declarations_say_what_is_wrong(
    changes: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        burgers(**changes)


def test_bad_pieces_say_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match="lower one first"):
        Box(x=(1, -1))
    with pytest.raises(SettingsError, match="expected a short name"):
        Box(value=(0, 1))
    with pytest.raises(SettingsError, match="use Initial"):
        Dirichlet("t", u=0.0)
    with pytest.raises(SettingsError, match="use Dirichlet"):
        Robin("x", b=0.0, u=0.0)
    with pytest.raises(NonFiniteError, match="Data: u"):
        Data(torch.zeros(1, 2), u=[math.inf])
    with pytest.raises(SettingsError, match="do not overlap"):
        Box(x=(0, 1)) & Box(x=(2, 3))
    with pytest.raises(SettingsError, match="no point of the boundary"):
        Problem(
            name="hole",
            domain=Box(x=(0, 1), y=(0, 1)),
            residual=lambda u: u.xx + u.yy,
            conditions=[Dirichlet(u=0.0), Dirichlet(on=Ball(0.1, x=5.0, y=5.0), u=0.0)],
        )


def test_backward_heat_and_elliptic_waves_are_refused_in_any_form() -> None:
    box = Box(x=(0, 1), y=(0, 1), t=(0, 1))
    walls = Dirichlet(u=0.0)
    forms = {
        "heat": (lambda u, a: a * u.xx + u.yy - u.t, Initial(u=0.0)),
        "wave": (lambda u, a: u.tt - a * u.xx - u.yy, Initial(u=0.0, u_t=0.0)),
        "mixed": (lambda u, a: u.t - u.xx - u.yy - (1 - a) * u.xy * 2, Initial(u=0.0)),
    }
    for name, (residual, start) in forms.items():
        kwargs = {"name": name, "domain": box, "residual": residual, "conditions": [start, walls]}
        Problem(coefficients={"a": 0.5}, **kwargs)
        with pytest.raises(SettingsError, match="a=-0.5.*ill-posed|ill-posed"):
            Problem(coefficients={"a": -0.5}, **kwargs)
    # Waves of a first-order system, where no field diffuses by itself.
    Problem(
        name="Schroedinger",
        domain=Box(x=(0, 1), t=(0, 1)),
        fields=("u", "v"),
        residual=lambda u, v: (u.t + 0.5 * v.xx, v.t - 0.5 * u.xx),
        conditions=[Initial(u=0.0, v=0.0), Dirichlet(u=0.0, v=0.0)],
    )
    # Degenerate and solution-dependent diffusion may be well-posed.
    Problem(
        name="porous medium",
        domain=box,
        residual=lambda u: u.t - u * u.xx - u.x * u.x - u.yy,
        conditions=[Initial(u=1.0), walls],
    )


def test_condition_terms_vanish_on_a_function_that_fulfils_them() -> None:
    # u = sin(2 pi x) exp(y) on the unit square
    box = Box(x=(0, 1), y=(0, 1))
    conditions = [
        Periodic("x"),
        Neumann("y", "lower", u=lambda x: -sin(2 * pi * x)),
        Robin("y", "upper", a=2.0, b=3.0, u=lambda x, y: 5 * sin(2 * pi * x) * exp(y)),
        Data({"x": [0.25], "y": [0.0]}, u=[1.0], scale=0.1),
    ]
    problem = Problem(
        name="square", domain=box, residual=lambda u: u.xx + u.yy, conditions=conditions
    )

    def values(points: torch.Tensor) -> dict[str, dict[tuple[int, int], torch.Tensor]]:
        x, y = points.unbind(-1)
        s, c, e = torch.sin(2 * pi * x), 2 * pi * torch.cos(2 * pi * x), torch.exp(y)
        return {"u": {(0, 0): s * e, (1, 0): c * e, (0, 1): s * e}}

    for condition in problem.conditions:
        where = problem.place_condition(condition, 32)
        partners = None if where.partners is None else values(where.partners)
        terms = problem.condition_terms(condition, where, values(where.points), partners=partners)
        for name, term in terms.items():
            assert float(term.abs().max()) < 1e-12, name


def test_a_hole_and_a_polygon_have_boundaries_with_outward_normals() -> None:
    hole = Ball(0.2, x=0.5, y=0.5)
    square = Box(x=(0, 1), y=(0, 1))
    domain = (square - hole) * Box(t=(0, 2))
    problem = Problem(
        name="hole",
        domain=domain,
        residual=lambda u: u.t - u.xx - u.yy,
        conditions=[Initial(u=0.0), Dirichlet(on=hole, u=1.0), Neumann(on=square, u=0.0)],
    )
    labels = [condition.label for condition in problem.conditions]
    assert labels[1:] == ["dirichlet Ball(0.2, x=0.5, y=0.5)", "neumann Box(x=(0, 1), y=(0, 1))"]
    where = problem.place_condition(problem.conditions[1], 256)
    assert where.normals is not None
    offset = where.points[:, :2] - 0.5
    assert torch.allclose(offset.norm(dim=1), torch.tensor(0.2, dtype=torch.float64))
    # Out of the domain is into the hole.
    assert bool(((offset * where.normals[:, :2]).sum(1) < -0.199).all())
    assert bool((where.normals[:, 2] == 0).all())
    assert len(where.points) == 256

    outer = problem.place_condition(problem.conditions[2], 64)
    assert outer.normals is not None
    assert bool((((outer.points - 0.5) * outer.normals).sum(1) - 0.5).abs().max() < 1e-12)
    # The whole boundary is covered evenly: 4 of it straight, 0.4 pi round.
    whole = domain.surface(unit_points("sobol", 4000, 3)).points[:, :2]
    share = float(((whole - 0.5).norm(dim=1) < 0.3).double().mean())
    assert share == pytest.approx(0.4 * pi / (4 + 0.4 * pi), abs=0.03)

    square = Polygon([(0, 0), (0, 1), (1, 1), (1, 0)])
    found = square.surface(unit_points("sobol", 400, 2))
    assert bool(square.contains(found.points).all())
    assert bool((~square.contains(found.points + 1e-6 * found.normals)).all())
    # Divergence theorem: the flux of (x, y) is twice the area.
    flux = 4 * float((found.points * found.normals).sum(1).mean())
    assert flux == pytest.approx(2.0, abs=0.02)


def test_a_reference_follows_the_coefficients_or_is_dropped() -> None:
    problem = burgers(reference=lambda x, t, nu: x * t / nu)
    points = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    assert float(problem.reference_values(points)["u"]) == pytest.approx(10.0)
    halved = problem.with_coefficients(nu=0.02)
    assert float(halved.reference_values(points)["u"]) == pytest.approx(5.0)
    fixed = burgers(reference=lambda x, t: x * t).with_coefficients(nu=0.02)
    with pytest.raises(SettingsError, match="no reference"):
        fixed.reference_values(points)
    with pytest.raises(SettingsError, match="did you mean 'nu'"):
        problem.with_coefficients(nuu=0.02)
    with pytest.raises(NonFiniteError, match="reference u"):
        burgers(reference=lambda x, t: x / (t - t)).reference_values(points)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (math.nan, NonFiniteError, "coefficient k: got nan, expected a finite number$"),
        (math.inf, NonFiniteError, "coefficient k: got inf"),
        ("fast", SettingsError, "coefficient k: got str, expected a number"),
        (None, SettingsError, "coefficient k: got NoneType"),
        (torch.ones(3), SettingsError, "coefficient k: got Tensor"),
        (lambda x: x, SettingsError, "written into the residual"),
    ],
)
def test_a_coefficient_is_a_finite_number(value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Problem(
            name="rod", domain=Box(x=(0, 1)), residual=lambda u, x, k: u.xx + k,
            coefficients={"k": value}, conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        )  # fmt: skip
