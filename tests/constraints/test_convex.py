"""Convex programs: agreement with cvxpy, gradients, honest statuses on both backends."""

import cvxpy as cp
import pytest
import torch

from constraints import (
    ConvexLayer,
    InfeasibleError,
    NotConvergedError,
    SettingsError,
    ShapeError,
    Status,
)
from constraints.convex import _solvers

BACKENDS = ("interior_point", "diffcp")


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def quadratic_program():
    x, y = cp.Variable(4, name="x"), cp.Parameter(4, name="y")
    A, h = cp.Parameter((3, 4), name="A"), cp.Parameter(3, name="h")
    objective = cp.Minimize(0.5 * cp.sum_squares(x - y))
    return cp.Problem(objective, [A @ x <= h, cp.sum(x) == 1]), [y, A, h], [x]


def norm_program():
    x, y, r = cp.Variable(3, name="x"), cp.Parameter(3, name="y"), cp.Parameter(nonneg=True)
    objective = cp.Minimize(cp.norm(x - y) + 0.1 * cp.sum_squares(x))
    return cp.Problem(objective, [cp.norm(x) <= r, x[0] >= -1]), [y, r], [x]


def entropy_program():
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c")
    return cp.Problem(cp.Minimize(c @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1]), [c], [x]


def semidefinite_program():
    X, C = cp.Variable((2, 2), symmetric=True, name="X"), cp.Parameter((2, 2), name="C")
    objective = cp.Minimize(cp.sum_squares(X - C))
    return cp.Problem(objective, [X >> 0]), [C], [X]


def values_of(make, batch):
    if make is quadratic_program:
        return [normal(batch, 4), normal(batch, 3, 4, seed=1), 1.0 + normal(batch, 3).abs()]
    if make is norm_program:
        return [normal(batch, 3), 0.5 + normal(batch, seed=1).abs()]
    if make is entropy_program:
        return [normal(batch, 3)]
    C = normal(batch, 2, 2)
    return [C + C.mT]


CASES = [
    (quadratic_program, "interior_point"),
    (quadratic_program, "diffcp"),
    (norm_program, "interior_point"),
    (norm_program, "diffcp"),
    (entropy_program, "diffcp"),
    (semidefinite_program, "diffcp"),
]


@pytest.mark.parametrize(("make", "backend"), CASES)
def test_agrees_with_cvxpy(make, backend):
    problem, parameters, variables = make()
    layer = ConvexLayer(problem, parameters, variables, backend=backend)
    assert layer.backend == backend
    values = values_of(make, 4)
    (x,), report = layer(*values)
    assert report.all_converged
    for item in range(4):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value[item].numpy()
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
        expected = torch.from_numpy(variables[0].value)
        torch.testing.assert_close(x[item], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("make", "backend"), CASES)
def test_gradients_match_finite_differences(make, backend):
    problem, parameters, variables = make()
    layer = ConvexLayer(problem, parameters, variables, backend=backend)
    values = [value.requires_grad_() for value in values_of(make, 2)]
    weight = normal(*layer(*values)[0][0].shape, seed=9)
    loss = (layer(*values)[0][0] * weight).sum()
    gradients = torch.autograd.grad(loss, values)
    g = torch.Generator().manual_seed(4)
    for k, gradient in enumerate(gradients):
        way = torch.randn(values[k].shape, generator=g, dtype=torch.float64)
        if make is semidefinite_program:
            way = way + way.mT
        # diffcp's solutions of exponential cones carry noise of 1e-6.
        step = 1e-4 if backend == "interior_point" else 3e-3
        ends = []
        with torch.no_grad():
            for move in (step, -step):
                moved = [v + move * way if i == k else v for i, v in enumerate(values)]
                ends.append((layer(*moved)[0][0] * weight).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        expected = (gradient * way).sum()
        tolerance = 1e-5 if backend == "interior_point" else 2e-3
        assert abs(slope - expected) < tolerance * (1 + abs(expected))


def test_other_cones_choose_diffcp():
    assert ConvexLayer(*entropy_program()).backend == "diffcp"
    assert ConvexLayer(*norm_program()).backend == "interior_point"
    with pytest.raises(SettingsError, match="backend: got 'interior_point'"):
        ConvexLayer(*semidefinite_program(), backend="interior_point")


@pytest.mark.parametrize("backend", BACKENDS)
def test_infeasible_and_not_a_number_are_named(backend):
    problem, parameters, variables = quadratic_program()
    layer = ConvexLayer(problem, parameters, variables, backend=backend, on_failure="mask")
    y, A, h = values_of(quadratic_program, 4)
    A[1, 1], h[1, 1] = -A[1, 0], -h[1, 0] - 1.0
    y[2, 0] = torch.nan
    tensors = [value.requires_grad_() for value in (y, A, h)]
    (x,), report = layer(*tensors)
    assert report.status.tolist() == [0, Status.INFEASIBLE, Status.NON_FINITE, 0]
    assert report.residual.isnan().tolist() == [False, False, True, False]
    x[report.converged].sum().backward()
    for value in tensors:
        assert (value.grad[1:3] == 0).all()
        assert value.grad.isfinite().all()
    good = torch.tensor([0, 3])
    (alone,), _ = layer(*(value.detach()[good] for value in tensors))
    torch.testing.assert_close(x[good].detach(), alone, atol=1e-12, rtol=1e-12)
    strict = ConvexLayer(problem, parameters, variables, backend=backend)
    with pytest.raises(InfeasibleError, match="1 of 2 items"):
        strict(*(value.detach()[:2] for value in tensors))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unbounded_is_named(backend):
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0])
    layer = ConvexLayer(problem, [c], [x], backend=backend, on_failure="mask")
    _, report = layer(torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64))
    assert report.status.tolist() == [Status.CONVERGED, Status.UNBOUNDED]


def test_a_status_that_lies_is_overridden(monkeypatch):
    layer = ConvexLayer(*quadratic_program())
    honest = _solvers.solve_cone_programs

    def liar(data, **settings):
        solved = honest(data, **settings)
        solved.x.add_(0.1)  # in the place of the solution
        return solved

    monkeypatch.setattr(_solvers, "solve_cone_programs", liar)
    with pytest.raises(NotConvergedError, match="STALLED 4"):
        layer(*values_of(quadratic_program, 4))


def test_shared_parameters_sum_their_gradients():
    layer = ConvexLayer(*quadratic_program())
    y, A, h = values_of(quadratic_program, 3)
    shared, h = A[0].clone().requires_grad_(), h + 3.0
    layer(y, shared, h)[0][0].square().sum().backward()
    parts = A[0].expand(3, 3, 4).clone().requires_grad_()
    layer(y, parts, h)[0][0].square().sum().backward()
    torch.testing.assert_close(shared.grad, parts.grad.sum(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_precision_empty_batches_and_bad_values(backend):
    x, wish, most = cp.Variable(3), cp.Parameter(3, name="wish"), cp.Parameter(name="most")
    cost = cp.Minimize(cp.sum_squares(x - wish))
    layer = ConvexLayer(cp.Problem(cost, [x <= most]), [wish, most], [x], backend=backend)
    (value,), report = layer(torch.ones(2, 3), torch.tensor(0.5))
    assert value.dtype == torch.float32
    assert report.all_converged
    torch.testing.assert_close(value, torch.full((2, 3), 0.5), atol=1e-5, rtol=0)
    nobody = torch.ones(0, 3).double().requires_grad_()
    (value,), report = layer(nobody, torch.tensor(0.5).double())
    assert value.shape == (0, 3)
    assert report.shape == (0,)
    value.sum().backward()
    assert nobody.grad.shape == (0, 3)
    with pytest.raises(SettingsError, match="wish: got list, expected a tensor"):
        layer([1.0, 1.0, 1.0], torch.tensor(0.5).double())
    with pytest.raises(ShapeError, match="most: got a batch of 3, expected 2"):
        layer(torch.ones(2, 3).double(), torch.ones(3).double())


def test_one_item_without_batch_axis():
    layer = ConvexLayer(*norm_program())
    y, r = values_of(norm_program, 2)
    (x,), report = layer(y[0], r[0])
    assert x.shape == (3,)
    assert report.shape == ()
    torch.testing.assert_close(x, layer(y, r)[0][0][0], atol=1e-9, rtol=1e-9)


def test_bad_problems_are_named():
    x, a, b = cp.Variable(2, name="x"), cp.Parameter(name="a"), cp.Parameter(name="b")
    good = [x >= a]
    with pytest.raises(SettingsError, match="constraint 1 holds a parameter in a product"):
        ConvexLayer(cp.Problem(cp.Minimize(cp.sum(x)), [*good, a * b * x <= 1]), [a, b], [x])
    with pytest.raises(SettingsError, match="objective is not convex"):
        ConvexLayer(cp.Problem(cp.Maximize(cp.sum_squares(x)), good), [a], [x])
    problem = cp.Problem(cp.Minimize(cp.sum(x)), good)
    with pytest.raises(SettingsError, match="parameters: got too few.*missing a"):
        ConvexLayer(problem, [], [x])
    with pytest.raises(SettingsError, match="variables: got y"):
        ConvexLayer(problem, [a], [cp.Variable(2, name="y")])
    with pytest.raises(SettingsError, match="on_failure"):
        ConvexLayer(problem, [a], [x], on_failure="project")
    with pytest.raises(ShapeError, match=r"a: got shape \(3, 2\)"):
        ConvexLayer(problem, [a], [x])(torch.ones(3, 2).double())


def declared_program(form):
    """A program whose parameter was declared to be of a kind, an allowed value, and another."""
    if form == "PSD":
        x, root = cp.Variable(2), cp.Parameter((2, 2), PSD=True, name="root")
        cost = cp.sum_squares(root @ x - 1.0)
        return (
            (cp.Problem(cp.Minimize(cost), [x <= 5.0]), [root], [x]),
            torch.eye(2).double(),
            torch.tensor([[1.0, 0.0], [0.0, -1.0]]).double(),
        )
    x, price = cp.Variable(2), cp.Parameter(name="price", **{form: True})
    sign = 1.0 if form in {"nonneg", "pos"} else -1.0
    cost = cp.sum_squares(x - 1.0) + sign * price * cp.norm(x, 1)
    one = torch.tensor(0.5 * sign, dtype=torch.float64)
    return (cp.Problem(cp.Minimize(cost), [x <= 5.0]), [price], [x]), one, -one


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["nonneg", "nonpos", "pos", "PSD"])
def test_a_parameter_against_its_declaration_is_the_matter_of_its_item(form, backend):
    program, good, bad = declared_program(form)
    layer = ConvexLayer(*program, backend=backend, on_failure="mask")
    given = torch.stack([good, bad, good, torch.full_like(good, torch.nan)]).requires_grad_()
    (x,), report = layer(given)
    ends = [Status.CONVERGED, Status.BREAKDOWN, Status.CONVERGED, Status.NON_FINITE]
    assert report.status.tolist() == ends
    assert report.residual[3].isnan()
    (alone,), _ = layer(good)
    torch.testing.assert_close(x[0], alone, atol=1e-9, rtol=0)
    (slope,) = torch.autograd.grad(x.sum(), given)
    assert slope[0].any()
    assert not slope[1].any()
    assert not slope[3].any()
    strict = ConvexLayer(*program, backend=backend)
    with pytest.raises(SettingsError, match=rf"{program[1][0].name()}: .*item 1.*{form}=True"):
        strict(given)
    with pytest.raises(SettingsError, match=f"{form}=True"):
        strict(bad)


def test_rounding_of_a_declared_parameter_is_no_failure():
    program, _, _ = declared_program("nonneg")
    layer = ConvexLayer(*program)
    value = torch.tensor([-1e-12, 0.5]).double().requires_grad_()
    (x,), report = layer(value)
    assert report.all_converged
    torch.testing.assert_close(x[0], torch.ones(2).double(), atol=1e-6, rtol=0)
    x[1].sum().backward()
    assert value.grad[1] != 0


def test_a_problem_without_rows():
    x, p = cp.Variable(2), cp.Parameter(2)
    value = torch.tensor([[1.4, 2.0]]).double().requires_grad_()
    pull = ConvexLayer(cp.Problem(cp.Minimize(cp.sum_squares(x) + p @ x)), [p], [x])
    (solved,), report = pull(value)
    assert report.all_converged
    torch.testing.assert_close(solved, -0.5 * value)
    (slope,) = torch.autograd.grad(solved.sum(), value)
    torch.testing.assert_close(slope, torch.full_like(slope, -0.5))
    falling = ConvexLayer(cp.Problem(cp.Minimize(p @ x)), [p], [x], on_failure="mask")
    assert falling(value)[1].status.tolist() == [Status.UNBOUNDED]


def test_the_nearest_point_without_constraints():
    x, p = cp.Variable(2), cp.Parameter(2)
    nearest = ConvexLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
    value = torch.tensor([[1.4, 2.0], [0.0, -3.0]]).double().requires_grad_()
    (solved,), _ = nearest(value)
    torch.testing.assert_close(solved, value)
    (slope,) = torch.autograd.grad(solved.sum(), value)
    torch.testing.assert_close(slope, torch.ones_like(slope))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x, p: (cp.sum_squares(x - p), [p, p], [x]), "each once"),
        (lambda x, p: (cp.sum_squares(x - 1.0), [], [x]), "got none"),
        (lambda x, p: (cp.sum(cp.Variable(2, integer=True) * 1.0) + p[0], [p], []), "integer"),
    ],
)
def test_programs_that_no_layer_can_be_made_of(make, match):
    cost, parameters, variables = make(cp.Variable(2), cp.Parameter(2))
    with pytest.raises(SettingsError, match=match):
        ConvexLayer(cp.Problem(cp.Minimize(cost)), parameters, variables)
