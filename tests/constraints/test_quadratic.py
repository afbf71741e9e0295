"""Quadratic and cone programs: optimality, agreement with peers, invariances, gradients."""

import gc
import weakref

import clarabel
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from constraints import ConeProgram, QuadraticProgram
from solvers.core import SettingsError, ShapeError
from solvers.nonlinear import cones
from solvers.nonlinear.interior_point import ConeProgramData, solve_cone_programs
from solvers.nonlinear.interior_point._compiled import CompiledInteriorPoint

BACKENDS = ("kernel", "reference")
NAMES = ("Q", "q", "G", "h", "A", "b")


def programs(batch, n, m, p, seed=0, curvature=0.1):
    """Strictly feasible programs with data of their own."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    root, x0 = normal(batch, n, n), normal(batch, n)
    G, A = normal(batch, m, n), normal(batch, p, n)
    slack = torch.rand(batch, m, generator=g, dtype=torch.float64) + 0.01
    return {
        "Q": root @ root.mT / n + curvature * torch.eye(n, dtype=torch.float64),
        "q": normal(batch, n),
        "G": G,
        "h": (G @ x0[..., None])[..., 0] + slack,
        "A": A,
        "b": (A @ x0[..., None])[..., 0],
    }


def contacts(batch, count, seed=0, curvature=0.1, friction=0.5):
    """Impulses in friction cones that minimise the kinetic energy after an impact."""
    g = torch.Generator().manual_seed(seed)
    n = 3 * count
    root = torch.randn(batch, n, n, generator=g, dtype=torch.float64)
    scale = torch.tensor([friction, 1.0, 1.0], dtype=torch.float64).repeat(count)
    return {
        "Q": root @ root.mT / n + curvature * torch.eye(n, dtype=torch.float64),
        "q": torch.randn(batch, n, generator=g, dtype=torch.float64),
        "G": -torch.diag(scale),
        "h": torch.zeros(n, dtype=torch.float64),
    }


def clarabel_solution(data, item, second_order=()):
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-11
    Q, q, G, h = (
        data[k] if data[k].ndim == e else data[k][item]
        for k, e in zip("QqGh", (2, 1, 2, 1), strict=True)
    )
    A, b = (data[k][item] for k in "Ab") if "A" in data else (G[:0], h[:0])
    flat = len(h) - sum(second_order)
    kinds = [clarabel.ZeroConeT(len(b)), clarabel.NonnegativeConeT(flat)]
    kinds += [clarabel.SecondOrderConeT(size) for size in second_order]
    triangle = scipy.sparse.triu(scipy.sparse.csc_matrix(Q.numpy())).tocsc()
    rows = scipy.sparse.csc_matrix(torch.cat([A, G]).numpy())
    right = torch.cat([b, h]).numpy()
    solution = clarabel.DefaultSolver(triangle, q.numpy(), rows, right, kinds, options).solve()
    return torch.tensor(solution.x, dtype=torch.float64)


def optimality(data, solved):
    """Largest violation of each optimality condition."""
    Q, q, G, h, A, b = (data[k] for k in NAMES)
    x, y, z = solved.x, solved.y, solved.z

    def times(matrix, vector):
        return (matrix @ vector[..., None])[..., 0]

    slack = h - times(G, x)
    return {
        "stationarity": (times(Q, x) + q + times(G.mT, z) + times(A.mT, y)).abs().max(),
        "inequalities": (-slack).clamp(min=0).max(),
        "equalities": (times(A, x) - b).abs().max(),
        "signs": (-z).clamp(min=0).max(),
        "complementarity": (slack * z).abs().max(),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", [(9, 8, 12, 2), (1, 20, 20, 5), (5, 60, 50, 12), (3, 3, 1, 1)])
def test_optimality_conditions_hold_to_rounding(backend, sizes):
    data = programs(*sizes)
    inputs = ConeProgramData(*(data[k] for k in NAMES), (), sizes[0])
    solved = solve_cone_programs(inputs, backend=backend)
    assert not solved.has_failures
    for name, value in optimality(data, solved).items():
        assert value < 1e-11, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [2, 15, 50])
def test_agrees_with_clarabel(backend, n):
    data = programs(6, n, n + 3, n // 4, seed=n)
    x, _ = QuadraticProgram(backend=backend)(**data)
    for item in range(6):
        torch.testing.assert_close(x[item], clarabel_solution(data, item), atol=2e-7, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 4, 16])
def test_contacts_agree_with_clarabel(backend, count):
    data = contacts(5, count, seed=count)
    second_order = (3,) * count
    x, _ = ConeProgram(second_order=second_order, backend=backend)(**data)
    for item in range(5):
        peer = clarabel_solution(data, item, second_order)
        torch.testing.assert_close(x[item], peer, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", ["within", "across"])
@pytest.mark.parametrize("second_order", [(), (4,), (3, 3), (2, 5)])
def test_layouts_and_reference_agree(layout, second_order):
    m = 4 + sum(second_order)
    data = programs(7, 9, m, 2, seed=3)
    if second_order:
        # Slacks well inside the cones.
        start = 4
        for size in second_order:
            data["h"][:, start] += 10.0
            start += size
    inputs = ConeProgramData(*(data[k] for k in NAMES), second_order, 7)
    expected = solve_cone_programs(inputs, backend="reference")
    solved = CompiledInteriorPoint(inputs, max_iterations=50, layout=layout)
    assert not expected.has_failures
    assert not solved.has_failures
    cotangent = torch.randn(7, 9, dtype=torch.float64)
    for ours, theirs in zip(
        (solved.x, solved.y, solved.z, solved.s, *solved.adjoint(cotangent)),
        (expected.x, expected.y, expected.z, expected.s, *expected.adjoint(cotangent)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-7)


def test_many_ill_conditioned_contacts_all_converge():
    data = contacts(1024, 8, curvature=1e-3)
    _, report = ConeProgram(second_order=(3,) * 8)(**data)
    assert report.all_converged
    assert report.residual.max() < 1e-10


def test_slacks_and_multipliers_are_orthogonal_in_the_algebra_of_contact():
    data = contacts(4, 2)
    empty = torch.zeros(0, 6, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    inputs = ConeProgramData(data["Q"], data["q"], data["G"], data["h"], *empty, (3, 3), 4)
    solved = solve_cone_programs(inputs)
    for start in (0, 3):
        s, z = solved.s[:, start : start + 3].T, solved.z[:, start : start + 3].T
        head, tail = cones.second_order_product(s[0], [s[1], s[2]], z[0], [z[1], z[2]])
        for entry in (head, *tail):
            assert entry.abs().max() < 1e-12


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(0, 14),
    p=st.integers(0, 3),
    batch=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_any_feasible_program_is_solved(n, m, p, batch, seed):
    data = programs(batch, n, m, min(p, n), seed)
    x, report = QuadraticProgram()(**data)
    assert report.all_converged
    assert ((data["G"] @ x[..., None])[..., 0] - data["h"]).clamp(min=0).sum() < 1e-10
    single, _ = QuadraticProgram()(**{k: v[0] for k, v in data.items()})
    torch.testing.assert_close(single, x[0], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_units_of_rows_and_cost_do_not_matter(backend):
    data = programs(16, 12, 16, 3)
    layer = QuadraticProgram(backend=backend)
    x, _ = layer(**data)
    g = torch.Generator().manual_seed(1)
    rows = 10 ** (8 * torch.rand(16, 16, generator=g, dtype=torch.float64) - 4)
    equal = 10 ** (8 * torch.rand(16, 3, generator=g, dtype=torch.float64) - 4)
    scaled = data | {
        "G": data["G"] * rows[..., None],
        "h": data["h"] * rows,
        "A": data["A"] * equal[..., None],
        "b": data["b"] * equal,
    }
    for cost in (1e-4, 1.0, 1e4):
        again, report = layer(**(scaled | {"Q": cost * data["Q"], "q": cost * data["q"]}))
        assert report.all_converged
        torch.testing.assert_close(again, x, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_programs_converge(backend):
    data = programs(8, 10, 12, 3)
    layer = QuadraticProgram(backend=backend)
    x, _ = layer(**data)
    twice = {k: torch.cat([data[k], data[k]], 1) for k in "GhAb"}
    torch.testing.assert_close(layer(**(data | twice))[0], x, atol=1e-8, rtol=1e-8)
    # Every row touches the unconstrained optimum: weakly active.
    free = -torch.linalg.solve(data["Q"], data["q"])
    touching = (data["G"] @ free[..., None])[..., 0]
    x, _ = layer(Q=data["Q"], q=data["q"], G=data["G"], h=touching)
    torch.testing.assert_close(x, free, atol=1e-8, rtol=1e-8)
    # A linear program in a box ends in a corner.
    box = torch.cat([torch.eye(10), -torch.eye(10)]).double()
    x, _ = layer(Q=0 * data["Q"], q=data["q"], G=box, h=torch.ones(20).double())
    torch.testing.assert_close(x, -data["q"].sign(), atol=1e-9, rtol=0)


def test_rows_without_bound_are_left_out():
    data = programs(5, 6, 8, 1)
    fewer, _ = QuadraticProgram()(**(data | {"G": data["G"][:, 1:], "h": data["h"][:, 1:]}))
    h = data["h"].clone()
    for bound in (1e20, torch.inf):
        h[:, 0] = bound
        x, _ = QuadraticProgram()(**(data | {"h": h}))
        torch.testing.assert_close(x, fewer, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("shared", [(), ("Q", "G", "A"), ("q", "h", "b"), NAMES])
def test_gradients_match_finite_differences(shared):
    data = programs(3, 5, 6, 2, seed=7)
    if "G" in shared and "h" not in shared:
        # One set of rows, right-hand sides that leave each item feasible.
        x0 = torch.randn(3, 5, dtype=torch.float64)
        data["h"] = x0 @ data["G"][0].T + 0.3
        data["b"] = x0 @ data["A"][0].T
    elif "h" in shared and "G" not in shared:
        data["h"], data["b"] = data["h"].abs() + 0.1, 0 * data["b"]
    data = {k: v[0].clone() if k in shared else v for k, v in data.items()}
    tensors = [data[k].requires_grad_() for k in NAMES]
    layer = QuadraticProgram()
    assert torch.autograd.gradcheck(
        lambda *values: layer(**dict(zip(NAMES, values, strict=True)))[0],
        tensors,
        eps=1e-6,
        atol=1e-6,
        rtol=1e-6,
    )


def test_cone_gradients_match_finite_differences():
    data = contacts(2, 2, seed=5)
    data["G"] = data["G"].expand(2, 6, 6).clone()
    data["h"] = 0.1 * torch.rand(2, 6, dtype=torch.float64)
    tensors = [data[k].requires_grad_() for k in NAMES[:4]]
    layer = ConeProgram(second_order=(3, 3))
    assert torch.autograd.gradcheck(
        lambda *values: layer(**dict(zip(NAMES, values, strict=False)))[0],
        tensors,
        eps=1e-6,
        atol=1e-5,
        rtol=1e-5,
    )


def test_gradient_of_hessian_is_symmetric_and_ignores_the_other_part():
    data = programs(3, 5, 6, 1)
    skew = torch.randn(3, 5, 5, dtype=torch.float64)
    x, _ = QuadraticProgram()(**data)
    Q = (data["Q"] + skew - skew.mT).requires_grad_()
    again, _ = QuadraticProgram()(**(data | {"Q": Q}))
    torch.testing.assert_close(again, x, atol=1e-10, rtol=1e-10)
    again.square().sum().backward()
    torch.testing.assert_close(Q.grad, Q.grad.mT)


def test_threads_give_the_same_bits():
    data = programs(67, 8, 10, 1)
    gradients = []
    for threads in (1, 2, 3):
        q = data["q"].clone().requires_grad_()
        x, _ = QuadraticProgram(threads=threads)(**(data | {"q": q}))
        x.square().sum().backward()
        gradients.append((x.detach(), q.grad))
    for x, gradient in gradients[1:]:
        assert torch.equal(x, gradients[0][0])
        assert torch.equal(gradient, gradients[0][1])


def test_calls_from_several_threads_do_not_mix():
    from concurrent.futures import ThreadPoolExecutor

    cases = [programs(6, 4 + i % 5, 6, 1, seed=i) for i in range(24)]
    layer = QuadraticProgram()
    expected = [layer(**case)[0] for case in cases]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: layer(**case)[0], cases))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_backward_survives_other_calls_and_repeats():
    first, second = programs(4, 6, 8, 1, seed=1), programs(4, 6, 8, 1, seed=2)
    q = first["q"].clone().requires_grad_()
    x, _ = QuadraticProgram()(**(first | {"q": q}))
    QuadraticProgram()(**second)
    (before,) = torch.autograd.grad(x.sum(), q, retain_graph=True)
    QuadraticProgram()(**second)
    (after,) = torch.autograd.grad(x.sum(), q)
    assert torch.equal(before, after)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dropped_solution_frees_its_memory_at_once(backend):
    data = programs(2, 4, 5, 1)
    q = data["q"].clone().requires_grad_()
    x, _ = QuadraticProgram(backend=backend)(**(data | {"q": q}))
    graph = weakref.ref(x.grad_fn)
    gc.disable()  # what only the collector frees is kept for long
    try:
        del x
        assert graph() is None
    finally:
        gc.enable()


def test_change_in_place_before_backward_is_found():
    data = programs(4, 6, 8, 1)
    q = data["q"].clone().requires_grad_()
    x, _ = QuadraticProgram()(**(data | {"q": q}))
    data["G"].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        x.sum().backward()


def test_single_precision_in_and_out():
    data = programs(4, 6, 8, 1)
    x, _ = QuadraticProgram()(**data)
    q = data["q"].float().requires_grad_()
    single, report = QuadraticProgram()(**({k: v.float() for k, v in data.items()} | {"q": q}))
    assert single.dtype == torch.float32
    assert report.all_converged
    torch.testing.assert_close(single.double(), x, atol=1e-4, rtol=1e-4)
    single.sum().backward()
    assert q.grad.dtype == torch.float32


def test_empty_batch_and_no_rows():
    data = programs(1, 4, 3, 1)
    nothing = {k: v[:0] for k, v in data.items()}
    for backend in BACKENDS:
        x, report = QuadraticProgram(backend=backend)(**nothing)
        assert x.shape == (0, 4)
        assert report.shape == (0,)
        x, _ = QuadraticProgram(backend=backend)(Q=data["Q"][0], q=data["q"][0])
        torch.testing.assert_close(x, -torch.linalg.solve(data["Q"][0], data["q"][0]))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"q": torch.ones(2, 5).double()}, ShapeError, r"Q: got shape \(2, 6, 6\)"),
        ({"h": None}, SettingsError, "h: got None with G given"),
        ({"G": None}, SettingsError, "G: got None with h given"),
        ({"A": torch.ones(3, 1, 6).double()}, ShapeError, "A: got a batch of 3, expected 2"),
        ({"b": torch.ones(2, 2).double()}, ShapeError, "A: got shape"),
        ({"q": torch.ones(2, 6)}, SettingsError, "Q: got torch.float64 on cpu"),
        ({"Q": np.eye(6)}, SettingsError, "Q: got ndarray, expected a tensor"),
        ({"h": [1.0] * 4}, SettingsError, "h: got list, expected a tensor"),
        ({"A": np.ones((1, 6))}, SettingsError, "A: got ndarray, expected a tensor"),
        ({"q": torch.ones(())}, ShapeError, "q: got shape"),
    ],
)
def test_bad_input_is_named(change, error, words):
    with pytest.raises(error, match=words):
        QuadraticProgram()(**(programs(2, 6, 4, 1) | change))


def test_bad_settings_are_named():
    with pytest.raises(SettingsError, match="on_failure: got 'ignore'"):
        QuadraticProgram(on_failure="ignore")
    with pytest.raises(SettingsError, match="second_order: got a cone of size 1"):
        ConeProgram(second_order=(3, 1))
    with pytest.raises(SettingsError, match="threads"):
        QuadraticProgram(threads=0)
    with pytest.raises(SettingsError, match="backend"):
        QuadraticProgram(backend="gpu")
    with pytest.raises(ShapeError, match="h: got 4 rows, expected at least 5"):
        ConeProgram(second_order=(5,))(**programs(2, 6, 4, 1))


def test_a_solution_may_be_changed_in_place_where_no_gradient_needs_it():
    identity = torch.eye(2, dtype=torch.float64)
    q = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    x, _ = QuadraticProgram()(Q=identity, q=q)
    x += 1.0
    x.sum().backward()
    torch.testing.assert_close(q.grad, -torch.ones_like(q))
    Q = identity.clone().requires_grad_()
    x, _ = QuadraticProgram()(Q=Q, q=q)
    x += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()
