"""Advection: bounds, order, exact motions, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from physim.fluid import StaggeredGrid, advect
from physim.fluid._advection import Scheme
from solvers.core import SettingsError

SCHEMES: tuple[Scheme, ...] = ("semi-lagrangian", "maccormack")


def rotation(grid: StaggeredGrid) -> list[Tensor]:
    """One turn in 2 pi about the middle."""
    middle = torch.tensor(grid.shape) * grid.spacing / 2
    x, y = grid.faces(0) - middle, grid.faces(1) - middle
    return [-x[..., 1], y[..., 0]]


def turned_bump(cells: int, scheme: Scheme) -> float:
    """Error of a bump after a quarter of a turn."""
    grid = StaggeredGrid((cells, cells), 1.0 / cells)

    def bump(angle: float) -> Tensor:
        place = 0.5 + 0.2 * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        return torch.exp(-(((grid.centers() - place) / 0.1) ** 2).sum(-1))

    wind, steps = rotation(grid), cells // 4
    field = bump(0.0)
    for _ in range(steps):
        field = advect(grid, field, wind, 0.5 * math.pi / steps, scheme=scheme)
    return float((field - bump(0.5 * math.pi)).abs().mean())


def test_maccormack_is_of_second_order() -> None:
    sizes = torch.tensor([32.0, 64.0, 96.0, 128.0], dtype=torch.float64)
    slopes = {}
    for scheme in SCHEMES:
        errors = torch.tensor([turned_bump(int(n), scheme) for n in sizes], dtype=torch.float64)
        x, y = sizes.log(), errors.log()
        slopes[scheme] = -float(
            ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        )
    # The limiter cuts the tip of the bump, so not the full two.
    assert slopes["maccormack"] > 1.6
    assert 0.6 < slopes["semi-lagrangian"] < 1.4


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), speed=st.floats(0, 20), scheme=st.sampled_from(SCHEMES))
def test_no_new_extremum_at_any_speed(seed: int, speed: float, scheme: Scheme) -> None:
    generator = torch.Generator().manual_seed(seed)
    for shape in ((6, 9), (4, 5, 6)):
        grid = StaggeredGrid(shape, 0.5)
        field = torch.randn(shape, generator=generator, dtype=torch.float64)
        wind = [
            speed * torch.randn(grid.face_shape(a), generator=generator, dtype=torch.float64)
            for a in range(grid.axes)
        ]
        after = advect(grid, field, wind, 0.3, scheme=scheme)
        assert float(after.max()) <= float(field.max()) + 1e-12
        assert float(after.min()) >= float(field.min()) - 1e-12


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("component", [None, 0, 1])
def test_whole_cells_move_exactly(scheme: Scheme, component: int | None) -> None:
    grid = StaggeredGrid((10, 12), 0.5)
    shape = grid.shape if component is None else grid.face_shape(component)
    field = torch.randn(shape, dtype=torch.float64)
    wind = [
        torch.full(grid.face_shape(a), v, dtype=torch.float64) for a, v in ((0, 2.0), (1, -1.0))
    ]
    after = advect(grid, field, wind, 0.5, component=component, scheme=scheme)
    # Two cells along the first axis, one back along the second.
    inside = (slice(4, -2), slice(1, -2))
    assert torch.allclose(after[inside], field.roll((2, -1), (0, 1))[inside], atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_still_air_changes_nothing(scheme: Scheme) -> None:
    grid = StaggeredGrid((5, 6, 4))
    field = torch.randn(grid.shape, dtype=torch.float64)
    wind = [torch.zeros(grid.face_shape(a), dtype=torch.float64) for a in range(3)]
    assert torch.allclose(advect(grid, field, wind, 1.0, scheme=scheme), field, atol=1e-14)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_gradcheck(scheme: Scheme, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    grid = StaggeredGrid(shape)
    field = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wind = [
        (0.2 * torch.randn(grid.face_shape(a), dtype=torch.float64)).requires_grad_()
        for a in range(grid.axes)
    ]

    def after(field: Tensor, *wind: Tensor) -> Tensor:
        return advect(grid, field, wind, 0.7, scheme=scheme)

    assert torch.autograd.gradcheck(after, (field, *wind), fast_mode=True)


def test_an_unknown_scheme_is_named() -> None:
    grid = StaggeredGrid((4, 4))
    wind = [torch.zeros(grid.face_shape(a), dtype=torch.float64) for a in (0, 1)]
    with pytest.raises(SettingsError, match="did you mean 'maccormack'"):
        advect(grid, torch.zeros(4, 4), wind, 1.0, scheme="mcormack")  # type: ignore[arg-type]
