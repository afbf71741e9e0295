"""Positions, adjoint operators, and fractions of faces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physim.fluid import Box, Smoke, Sphere, StaggeredGrid
from physim.fluid._obstacles import open_fractions
from solvers.core import NonFiniteError, SettingsError, ShapeError

SHAPES = [(5, 7), (4, 3, 6)]
WALLS = ((False, False), (False, False), (False, False))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_the_negative_adjoint_of_divergence(shape: tuple[int, ...], draw) -> None:  # type: ignore[no-untyped-def]
    grid = StaggeredGrid(shape, 0.3)
    u = draw(grid)
    for axis, component in enumerate(u):
        component.select(axis, 0).zero_()
        component.select(axis, shape[axis]).zero_()
    p = torch.randn(shape, dtype=torch.float64)
    left = (grid.divergence(u) * p).sum()
    right = -sum(
        (part.narrow(axis, 1, shape[axis] - 1) * grid.gradient(p, axis)).sum()
        for axis, part in enumerate(u)
    )
    assert torch.allclose(left, torch.as_tensor(right))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_linear_flow_has_the_divergence_of_calculus(shape: tuple[int, ...]) -> None:
    grid = StaggeredGrid(shape, 0.3)
    u = [(axis + 1.0) * grid.faces(axis)[..., axis] for axis in range(grid.axes)]
    expected = sum(axis + 1.0 for axis in range(grid.axes))
    assert torch.allclose(grid.divergence(u), torch.full(shape, expected, dtype=torch.float64))


def test_faces_lie_between_centres() -> None:
    grid = StaggeredGrid((3, 4), 0.5)
    assert grid.centers()[1, 2].tolist() == [0.75, 1.25]
    assert grid.faces(0)[1, 2].tolist() == [0.5, 1.25]
    assert grid.faces(1)[1, 2].tolist() == [0.75, 1.0]


@given(
    x=st.floats(-3, 3), y=st.floats(-3, 3), half=st.floats(0.2, 2), radius=st.floats(0.2, 2),
)  # fmt: skip
def test_distances_have_slope_one(x: float, y: float, half: float, radius: float) -> None:
    point = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
    center = torch.tensor([0.1, -0.2], dtype=torch.float64)
    sizes = torch.tensor([half, 1.0], dtype=torch.float64)
    for body in (Sphere(center, radius), Box(center, sizes)):
        (slope,) = torch.autograd.grad(body.distance(point), point)
        # Kinks lie on lines; there the slope may be shorter.
        assert float(slope.norm()) <= 1 + 1e-12
    inside = bool(((point - center).abs() < sizes).all())
    assert (float(Box(center, sizes).distance(point.detach())) < 0) == inside


def test_fractions_are_those_of_walls_and_bodies() -> None:
    grid = StaggeredGrid((20, 20))
    center = torch.tensor([10.0, 10.0], dtype=torch.float64)
    sides = [(False, True), (False, False)]
    first, second = open_fractions(grid, [Sphere(center, 5.0)], sides)
    assert not first[0].any()
    assert (first[-1, :3] == 1).all()
    assert not second[:, 0].any()
    assert not second[:, -1].any()
    assert float(first[10, 9]) == 0.0
    assert 0 < float(first[10, 4]) < 1
    # Half of a face is open where its middle is on the surface.
    assert float(second[9:11, 5].mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StaggeredGrid((4,)), ShapeError, "two or three axes"),
        (lambda: StaggeredGrid((4, 1)), ShapeError, "two or three axes"),
        (lambda: StaggeredGrid((4, 4), -1.0), SettingsError, "spacing"),
        (lambda: Smoke(StaggeredGrid((4, 4)), timestep=0.0), SettingsError, "timestep"),
        (
            lambda: Smoke(StaggeredGrid((4, 4)), timestep=1.0, source=torch.ones(4, 5)),
            ShapeError,
            r"source: got shape \(4, 5\), expected \(4, 4\)",
        ),
        (
            lambda: Smoke(
                StaggeredGrid((4, 4)), timestep=1.0, source=torch.full((4, 4), torch.nan)
            ),
            NonFiniteError,
            "source",
        ),
        (
            lambda: Smoke(StaggeredGrid((4, 4)), timestep=1.0, sides=[(True, True)]),
            SettingsError,
            "sides",
        ),
        (
            lambda: Smoke(
                StaggeredGrid((4, 4)), timestep=1.0, obstacles=[Sphere(torch.zeros(2), 99.0)]
            ),
            SettingsError,
            "fill the whole grid",
        ),
    ],
)
def test_bad_input_is_named(make, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make()


def test_bodies_have_a_size_and_a_place_on_every_axis() -> None:
    center, sizes = torch.tensor([4.0, 4.0]), torch.tensor([1.0, 1.0])
    for make in (
        lambda: Sphere(center, -1.0),
        lambda: Sphere(center, torch.tensor(torch.nan)),
        lambda: Box(center, -sizes),
    ):
        with pytest.raises(SettingsError, match="radius|half_sizes"):
            make()
    grid = StaggeredGrid((8, 8))
    for body in (Sphere(center[:1], 1.0), Box(center, sizes[:1]), Box(torch.zeros(3), sizes)):
        with pytest.raises(ShapeError, match=r"expected \(2,\)"):
            Smoke(grid, timestep=1.0, obstacles=[body])
    with pytest.raises(NonFiniteError, match="obstacles"):
        Smoke(grid, timestep=1.0, obstacles=[Sphere(center * torch.nan, 1.0)])
    # Many bodies at once, as a search over sizes makes them.
    radii = torch.tensor([0.5, 2.0])
    found = torch.vmap(lambda r: Sphere(center, r).distance(torch.zeros(2)))(radii)
    torch.testing.assert_close(found, center.norm() - radii)


def test_grids_and_steps_are_whole_numbers() -> None:
    assert StaggeredGrid([8, 8]).shape == (8, 8)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="shape: got 4.5"):
        StaggeredGrid((4.5, 8))  # type: ignore[arg-type]
    scene = Smoke(StaggeredGrid((4, 4)), timestep=1.0)
    with pytest.raises(SettingsError, match="steps: got -1"):
        scene.run(scene.initial_state(), -1)
