"""Closed forms: violation at rounding, nearest points, gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from constraints import (
    AffineEquality,
    Box,
    DirichletLift,
    DivergenceFree,
    InfeasibleError,
    InitialLift,
    Integral,
    NonFiniteError,
    PeriodicLift,
    QuadraticProgram,
    SettingsError,
    ShapeError,
    Simplex,
    Status,
)

DIFFERENCES = ("spectral", "central", "staggered")


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def times(A, x):
    return (A @ x[..., None])[..., 0]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 30), p=st.integers(0, 12), seed=st.integers(0, 99))
def test_affine_projection_is_nearest(n, p, seed):
    A, x, b = normal(min(p, n), n, seed=seed), normal(4, n, seed=seed), normal(4, min(p, n))
    y = AffineEquality(A)(x, b)
    assert (times(A, y) - b).abs().sum() < 1e-9 * (1 + b.abs().sum())
    expected, _ = QuadraticProgram()(Q=torch.eye(n).double(), q=-x, A=A, b=b)
    torch.testing.assert_close(y, expected, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(AffineEquality(A)(y, b), y, atol=1e-9, rtol=1e-9)


def test_the_simplex_keeps_bad_items_apart_and_large_ones_exact() -> None:
    bad, large = float("nan"), 1e17
    x = torch.tensor(
        [[bad, 1.0, 2.0], [float("inf"), 1.0, 2.0], [0.9, 0.5, -0.7], [large, 0.0, 0.0]]
    ).double()
    for norm in ("sum", "l1"):
        solution = Simplex(norm=norm, on_failure="mask").solve(x)
        assert solution.report.failed_items(Status.NON_FINITE) == [(0,), (1,)]
        found = solution.value
        assert (found[:2] == 0).all()
        assert torch.allclose(found[2:].abs().sum(1), torch.ones(2).double())
        assert torch.equal(found[3], torch.tensor([1.0, 0.0, 0.0]).double())


def test_affine_violation_at_rounding_in_both_precisions():
    A, x, b = normal(50, 200), normal(16, 200, seed=1), normal(16, 50, seed=2)
    layer = AffineEquality(A)
    assert (times(A, layer(x, b)) - b).abs().max() < 1e-12
    single = layer(x.float(), b.float())
    assert single.dtype == torch.float32
    assert (times(A, single.double()) - b).abs().max() < 2e-5


def test_affine_rows_of_any_unit_and_dependent_rows():
    A, x = normal(3, 8), normal(5, 8, seed=1)
    b = times(A, normal(5, 8, seed=2))
    expected = AffineEquality(A)(x, b)
    units = torch.tensor([1e-8, 1.0, 1e8], dtype=torch.float64)
    torch.testing.assert_close(AffineEquality(A * units[:, None])(x, b * units), expected)
    twice = AffineEquality(torch.cat([A, 2.0 * A]))
    torch.testing.assert_close(twice(x, torch.cat([b, 2.0 * b], 1)), expected)
    with pytest.raises(InfeasibleError, match="b: no x satisfies dependent rows"):
        twice(x, torch.cat([b, b], 1))
    with pytest.raises(InfeasibleError, match=r"rows of item \(0,\) depend"):
        AffineEquality()(x, torch.cat([b, b], 1), torch.cat([A, A]).expand(5, 6, 8))


def test_affine_gradients():
    A = normal(3, 4, 7).requires_grad_()
    x, b = normal(3, 7).requires_grad_(), normal(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(AffineEquality(A[0].detach()), (x, b))
    assert torch.autograd.gradcheck(AffineEquality(), (x, b, A))
    torch.testing.assert_close(
        AffineEquality()(x, b, A)[1], AffineEquality(A[1].detach())(x[1], b[1])
    )


def test_affine_bad_input():
    with pytest.raises(ShapeError, match=r"x: got shape \(2, 5\)"):
        AffineEquality(normal(2, 4))(normal(2, 5), normal(2))
    with pytest.raises(SettingsError, match="A: got none"):
        AffineEquality()(normal(2, 5), normal(2))
    with pytest.raises(ArithmeticError, match=r"A at index \(0, 1\) is nan"):
        AffineEquality(torch.tensor([[1.0, math.nan]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_integral_is_conserved_to_rounding(dtype):
    weights = torch.rand(16, 12, dtype=torch.float64) + 0.1
    field, total = normal(5, 16, 12).to(dtype), normal(5)
    out = Integral(weights)(field, total)
    assert out.dtype == dtype
    missed = ((weights * out.double()).sum((-2, -1)) - total).abs().max()
    assert missed < (1e-12 if dtype == torch.float64 else 1e-4)
    change = out.double() - field.double()
    ratio = change / weights
    assert (ratio - ratio[:, :1, :1]).abs().max() < (1e-12 if dtype == torch.float64 else 1e-4)


def test_integral_gradients_and_bad_input():
    field = normal(2, 5).requires_grad_()
    total = normal(2).requires_grad_()
    assert torch.autograd.gradcheck(Integral(normal(5)), (field, total))
    with pytest.raises(ShapeError, match="field: got shape"):
        Integral(normal(5))(normal(2, 4), 0.0)
    with pytest.raises(SettingsError, match="weights: got zeros"):
        Integral(torch.zeros(3))


def test_mean_of_a_large_field_in_both_precisions():
    field = normal(64, 64) + 3.0
    mean_free = Integral(1.0 / 4096.0, axes=2)
    assert mean_free(field, 0.0).mean().abs() < 1e-15
    assert mean_free(field.float(), 0.0).double().mean().abs() < 1e-6


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20), total=st.floats(0.1, 10.0), seed=st.integers(0, 99))
def test_simplex_is_nearest(n, total, seed):
    x = 3.0 * normal(5, n, seed=seed)
    y = Simplex(total)(x)
    assert (y >= 0).all()
    torch.testing.assert_close(y.sum(-1), torch.full((5,), total, dtype=torch.float64))
    # Optimal: x - y is largest, and constant, on the support.
    gap = x - y
    largest = gap.amax(-1, keepdim=True)
    assert ((gap - largest).abs() * (y > 0)).max() < 1e-12


def test_l1_ball_and_simplex_gradients():
    x = normal(6, 8)
    y = Simplex(2.0, norm="l1")(x)
    assert (y.abs().sum(-1) <= 2.0 + 1e-12).all()
    inside = 0.1 * x / x.abs().sum(-1, keepdim=True)
    assert torch.equal(Simplex(2.0, norm="l1")(inside), inside)
    assert torch.autograd.gradcheck(Simplex(), (x.requires_grad_(),))
    tied = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    Simplex()(tied)[0].backward()
    torch.testing.assert_close(tied.grad, torch.tensor([2.0, -1.0, -1.0]).double() / 3)
    with pytest.raises(SettingsError, match="total"):
        Simplex(0.0)
    with pytest.raises(SettingsError, match="x: got shape"):
        Simplex()(torch.zeros(3, 0))


def test_box():
    x = 3.0 * normal(4, 5)
    low, high = -normal(5).abs(), normal(5, seed=3).abs()
    for smooth in (False, True):
        y = Box(smooth=smooth)(x, low, high)
        assert ((low <= y) & (y <= high)).all()
    tensors = tuple(t.requires_grad_() for t in (x, low, high))
    assert torch.autograd.gradcheck(Box(smooth=True), tensors)
    near = torch.linspace(-1e-4, 1e-4, 5, dtype=torch.float64)
    torch.testing.assert_close(Box(smooth=True)(near, -1.0, 1.0), near, atol=1e-9, rtol=0)
    with pytest.raises(InfeasibleError, match=r"at index \(1,\)"):
        Box()(x, torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0]), 1.0)
    with pytest.raises(SettingsError, match="infinite bound"):
        Box(smooth=True)(x, -math.inf, 1.0)


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("grid", [(8, 12), (9, 7), (6, 5, 4)])
def test_divergence_vanishes(difference, grid):
    d = len(grid)
    project = DivergenceFree([0.1 * (k + 1) for k in range(d)], difference=difference)
    u = normal(3, d, *grid)
    v = project(u)
    assert project.divergence(v).abs().max() < 1e-11
    torch.testing.assert_close(project(v), v)
    torch.testing.assert_close(v.mean(tuple(range(-d, 0))), u.mean(tuple(range(-d, 0))))
    # Nearest: the change is orthogonal to every field without divergence.
    w = project(normal(3, d, *grid, seed=1))
    assert ((u - v) * w).sum().abs() < 1e-10


def test_differences_are_the_named_ones():
    u = normal(2, 6, 5)
    h = (0.5, 0.25)
    central = sum((u[k].roll(-1, k) - u[k].roll(1, k)) / (2 * h[k]) for k in range(2))
    staggered = sum((u[k] - u[k].roll(1, k)) / h[k] for k in range(2))
    torch.testing.assert_close(DivergenceFree(h, difference="central").divergence(u), central)
    torch.testing.assert_close(DivergenceFree(h, difference="staggered").divergence(u), staggered)
    x = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    wave = torch.stack([torch.sin(x)[:, None].expand(16, 16), torch.zeros(16, 16).double()])
    spectral = DivergenceFree((2 * math.pi / 16,) * 2).divergence(wave)
    torch.testing.assert_close(spectral, torch.cos(x)[:, None].expand(16, 16))


def test_divergence_gradients_and_bad_input():
    project = DivergenceFree((1.0, 1.0))
    assert torch.autograd.gradcheck(project, (normal(2, 4, 6).requires_grad_(),))
    assert project(normal(2, 8, 8).float()).dtype == torch.float32
    with pytest.raises(ShapeError, match="velocity: got shape"):
        project(normal(3, 8, 8))
    with pytest.raises(ShapeError, match="spacing: got 1"):
        DivergenceFree((1.0,))


def test_dirichlet_lift_on_two_axes():
    field = normal(3, 7, 9)
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    y = torch.linspace(0, 1, 9, dtype=torch.float64)
    exact = (1 + x)[:, None] * (2 - y)
    fix = DirichletLift(axes=(-2, -1))
    out = fix(field, [(exact[0], exact[-1]), (exact[:, 0], exact[:, -1])])
    for face in (out[:, 0], out[:, -1]):
        assert face.shape == (3, 9)
    assert torch.equal(out[:, 0], exact[0].expand(3, 9))
    assert torch.equal(out[:, -1], exact[-1].expand(3, 9))
    assert torch.equal(out[:, :, 0], exact[:, 0].expand(3, 7))
    # A field that already holds the values is left alone; a bilinear one is rebuilt from its faces.
    faces = [(exact[0], exact[-1]), (exact[:, 0], exact[:, -1])]
    torch.testing.assert_close(fix(exact, faces), exact)
    torch.testing.assert_close(fix(torch.zeros(7, 9).double(), faces), exact)


def test_lift_gradients_and_bad_input():
    field, value = normal(4, 5).requires_grad_(), normal(4).requires_grad_()
    fix = DirichletLift(axes=(-1,))
    assert torch.autograd.gradcheck(lambda f, v: fix(f, [(v, 1.0)]), (field, value))
    with pytest.raises(SettingsError, match="axes: got"):
        DirichletLift(axes=(0,))
    with pytest.raises(ShapeError, match="values: got 2 pairs"):
        fix(field, [(0.0, 0.0), (0.0, 0.0)])
    with pytest.raises(ShapeError, match="field: got shape"):
        fix(normal(4, 1), [(0.0, 0.0)])


def test_initial_lift_keeps_the_start_exactly():
    output, initial = normal(5, 8), normal(8, seed=1)
    time = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    assert torch.equal(InitialLift(0.3)(output, initial, time)[0], initial)
    own = InitialLift(lambda t: t**2)(output, initial, time)
    torch.testing.assert_close(own, initial + time**2 * output)
    with pytest.raises(SettingsError, match="duration"):
        InitialLift(0.0)


@settings(max_examples=20, deadline=None)
@given(turns=st.integers(-5, 5), harmonics=st.integers(1, 3))
def test_periodic_lift_repeats(turns, harmonics):
    lift = PeriodicLift((2.5, math.inf, 1.0), harmonics=harmonics)
    x = normal(6, 3)
    shift = torch.tensor([2.5 * turns, 0.0, 1.0 * turns], dtype=torch.float64)
    assert lift(x).shape == (6, lift.features)
    torch.testing.assert_close(lift(x + shift), lift(x), atol=1e-12, rtol=0)


def test_periodic_lift_bad_input():
    with pytest.raises(SettingsError, match="periods"):
        PeriodicLift((0.0,))
    with pytest.raises(ShapeError, match="x: got shape"):
        PeriodicLift((1.0,))(normal(3, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: AffineEquality(torch.ones(1, 3).double())(x, 1.0 + torch.zeros(1)),
        lambda x: Box()(x, 0.5, 1.0),
        Simplex(),
        lambda x: Integral(0.25)(x, 1.0),
        lambda x: DirichletLift(axes=(-1,))(x, [(0.5, 1.0)]),
    ],
)
def test_whole_numbers_would_round_the_law_away_and_are_refused(
    call: Callable[[object], torch.Tensor],
) -> None:
    with pytest.raises(SettingsError, match="got type torch.int64, expected floating point"):
        call(torch.tensor([1, 2, 3]))
    with pytest.raises(SettingsError, match="got list, expected a tensor"):
        call([1.0, 2.0, 3.0])


def test_right_hand_sides_may_be_lists_and_bad_rows_are_told_from_dependent_ones() -> None:
    conserve = AffineEquality(torch.ones(1, 3).double())
    assert conserve(torch.zeros(3), [6]).tolist() == pytest.approx([2.0, 2.0, 2.0])
    rows = torch.ones(2, 1, 3).double()
    rows[1, 0, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"A at index \(1, 0, 2\)"):
        AffineEquality()(torch.zeros(2, 3), torch.zeros(1), rows)
