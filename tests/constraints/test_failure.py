"""What happens to items that have no solution, and to the good ones beside them."""

import pytest
import torch

from constraints import ConeProgram, QuadraticProgram
from constraints.failure import act_on_failure, check_policy
from solvers.core import (
    InfeasibleError,
    NotConvergedError,
    NumericalWarning,
    Report,
    SettingsError,
    ShapeError,
    Status,
)
from solvers.nonlinear.interior_point._reference import _solve_blocks
from solvers.nonlinear.interior_point._rows import Rows

BACKENDS = ("kernel", "reference")


def normal(g, *shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def times(matrix, vector):
    return (matrix @ vector[..., None])[..., 0]


def feasible(batch, n, m, p, seed):
    g = torch.Generator().manual_seed(seed)
    root, x0 = normal(g, batch, n, n), normal(g, batch, n)
    G, A = normal(g, batch, m, n), normal(g, batch, p, n)
    slack = torch.rand(batch, m, generator=g, dtype=torch.float64)
    identity = torch.eye(n, dtype=torch.float64)
    return {
        "Q": root @ root.mT / n + 0.1 * identity,
        "q": normal(g, batch, n),
        "G": G,
        "h": times(G, x0) + slack,
        "A": A,
        "b": times(A, x0),
    }


def opposed_rows(data, bad, g):
    gap = 10 ** (3 * torch.rand(len(bad), generator=g, dtype=torch.float64) - 2)
    data["G"][bad, 1] = -data["G"][bad, 0]
    data["h"][bad, 1] = -data["h"][bad, 0] - gap[bad]
    return Status.INFEASIBLE


def combined_rows(data, bad, g):
    weight = torch.rand(len(bad), data["h"].shape[1] - 1, generator=g, dtype=torch.float64)
    data["G"][bad, -1] = -(weight[..., None] * data["G"][:, :-1]).sum(1)[bad]
    data["h"][bad, -1] = -(weight * data["h"][:, :-1]).sum(1)[bad] - 0.1
    return Status.INFEASIBLE


def contradicting_equalities(data, bad, g):
    data["A"][bad, 1] = 2.0 * data["A"][bad, 0]
    data["b"][bad, 1] = 2.0 * data["b"][bad, 0] + 0.1
    return Status.INFEASIBLE


def ray(data, bad, g):
    n = data["q"].shape[1]
    d = torch.nn.functional.normalize(normal(g, len(bad), n), dim=1)
    flat = torch.eye(n, dtype=torch.float64) - d[:, :, None] * d[:, None, :]
    x0 = normal(g, len(bad), n)
    G = data["G"] - times(data["G"], d).clamp(min=0)[..., None] * d[:, None, :]
    A, Q = data["A"] @ flat, flat @ data["Q"] @ flat
    q = data["q"] - d * ((data["q"] * d).sum(1, keepdim=True) + 1.0)
    for name, value in (("Q", Q), ("q", q), ("G", G), ("A", A)):
        data[name][bad] = value[bad]
    data["h"][bad] = (times(G, x0) + 0.5)[bad]
    data["b"][bad] = times(A, x0)[bad]
    return Status.UNBOUNDED


def downward_cost(data, bad, g):
    n = data["q"].shape[1]
    d = torch.nn.functional.normalize(normal(g, len(bad), n), dim=1)
    bend = 10 ** (-3 * torch.rand(len(bad), generator=g, dtype=torch.float64))
    along = (d * times(data["Q"], d)).sum(1) + bend
    data["Q"][bad] -= (along[:, None, None] * d[:, :, None] * d[:, None, :])[bad]
    return Status.BREAKDOWN


def not_a_number(data, bad, g):
    data["h"][bad, 0] = torch.nan
    return Status.NON_FINITE


KINDS = (opposed_rows, combined_rows, contradicting_equalities, ray, downward_cost, not_a_number)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_failures_are_named_and_leave_the_others_alone(backend, kind):
    batch = 250 if backend == "kernel" else 40
    for seed, (n, m, p) in enumerate(((6, 8, 2), (20, 25, 4))):
        data = feasible(batch, n, m, p, seed)
        bad = torch.zeros(batch, dtype=torch.bool)
        bad[::2] = True
        expected = kind(data, bad, torch.Generator().manual_seed(seed))
        layer = QuadraticProgram(on_failure="mask", backend=backend)
        q = data["q"].clone().requires_grad_()
        x, report = layer(**(data | {"q": q}))
        assert (report.status[bad] == expected).all()
        assert report.converged[~bad].all()
        x.square().sum().backward()
        assert (q.grad[bad] == 0).all()
        good = {k: v[~bad] for k, v in data.items()}
        alone = good["q"].clone().requires_grad_()
        y, _ = layer(**(good | {"q": alone}))
        y.square().sum().backward()
        torch.testing.assert_close(x[~bad], y, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(q.grad[~bad], alone.grad, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_flat_directions_and_rounding_are_no_downward_cost(backend):
    """Costs of low rank, computed in single precision, have eigenvalues of either sign at zero."""
    g = torch.Generator().manual_seed(0)
    for n, batch in ((12, 20), (60, 4)):
        root = normal(g, batch, n, n // 3).float()
        Q = root @ root.mT
        assert (torch.linalg.eigvalsh(Q.double())[:, 0] < 0).any()
        G = torch.cat([torch.eye(n), -torch.eye(n)])
        layer = QuadraticProgram(on_failure="mask", backend=backend)
        _, report = layer(Q=Q, q=normal(g, batch, n).float(), G=G, h=torch.ones(2 * n))
        assert report.all_converged


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 9])
def test_a_shared_downward_cost_fails_every_item(backend, batch):
    Q = torch.diag(torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64))
    box = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    layer = QuadraticProgram(on_failure="mask", backend=backend)
    q = torch.ones(batch, 3, dtype=torch.float64, requires_grad=True)
    x, report = layer(Q=Q, q=q, G=box, h=torch.ones(6).double())
    assert (report.status == Status.BREAKDOWN).all()
    x.sum().backward()
    assert (q.grad == 0).all()
    contradiction = torch.tensor([-2.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    _, report = layer(Q=Q, q=q, G=box, h=contradiction)
    assert (report.status == Status.INFEASIBLE).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_parameters_get_nothing_from_failed_items(backend):
    data = feasible(4, 5, 6, 1, 0)
    G = data["G"][0].clone().requires_grad_()
    h = torch.ones(4, 6, dtype=torch.float64)
    h[1] = torch.nan
    layer = QuadraticProgram(on_failure="mask", backend=backend)
    x, report = layer(Q=data["Q"][0], q=data["q"], G=G, h=h)
    assert report.status.tolist() == [0, Status.NON_FINITE, 0, 0]
    assert (x[1] == 0).all()
    x.sum().backward()
    keep = torch.tensor([0, 2, 3])
    again = data["G"][0].clone().requires_grad_()
    y, _ = layer(Q=data["Q"][0], q=data["q"][keep], G=again, h=h[keep])
    y.sum().backward()
    torch.testing.assert_close(G.grad, again.grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cones_without_common_point_are_infeasible(backend):
    # |x| <= 1 and x0 >= 2, written as a cone of three rows and one row.
    G = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    h = torch.tensor([-2.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    layer = ConeProgram(second_order=(3,), on_failure="mask", backend=backend)
    identity = torch.eye(2, dtype=torch.float64)
    batch = torch.stack([h, h + torch.tensor([1.5, 0.0, 0.0, 0.0])])
    x, report = layer(Q=identity, q=torch.zeros(2).double(), G=G, h=batch)
    assert report.status.tolist() == [Status.INFEASIBLE, Status.CONVERGED]
    torch.testing.assert_close(x[1], torch.tensor([0.5, 0.0]).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infeasible_wins_over_unbounded(backend):
    g = torch.Generator().manual_seed(0)
    n, batch = 5, 32
    root, q, rows = (
        torch.randn(batch, *size, generator=g, dtype=torch.float64)
        for size in ((n, n), (n,), (2, n))
    )
    # Along the first unknown the cost falls, and no row stops it; the others contradict each other.
    root[:, :, 0], rows[:, :, 0] = 0.0, rows[:, :, 0].abs()
    q[:, 0] = 1.0 + q[:, 0].abs()
    wall = rows[:, :1] * torch.tensor([0.0] + [1.0] * (n - 1)).double()
    G, h = torch.cat([wall, -wall, rows], 1), torch.tensor([-1.0, -1.0, 0.5, 0.5]).double()
    order = torch.randperm(batch, generator=g)
    for some in (torch.arange(batch), order, order[:1], order[:3]):
        _, report = QuadraticProgram(on_failure="mask", backend=backend)(
            Q=(root.mT @ root)[some], q=q[some], G=G[some], h=h
        )
        assert (report.status == Status.INFEASIBLE).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_programs_without_bound(backend):
    g = torch.Generator().manual_seed(3)
    layer = QuadraticProgram(on_failure="mask", backend=backend)
    G = normal(g, 64, 6, 10)
    data = {"Q": torch.zeros(10, 10).double(), "q": normal(g, 64, 10), "G": G}
    _, report = layer(**data, h=torch.ones(6).double())
    assert (report.status == Status.UNBOUNDED).all()


def test_policies():
    data = feasible(4, 5, 6, 2, 0)
    bad = torch.tensor([False, True, False, False])
    opposed_rows(data, bad, torch.Generator().manual_seed(0))
    with pytest.raises(InfeasibleError, match="1 of 4") as caught:
        QuadraticProgram()(**data)
    assert caught.value.solution.report.status[1] == Status.INFEASIBLE
    with pytest.warns(NumericalWarning, match="INFEASIBLE 1 at item 1"):
        x, report = QuadraticProgram(on_failure="warn")(**data)
    masked, _ = QuadraticProgram(on_failure="mask")(**data)
    assert torch.equal(x, masked)
    assert report.failed_items() == [(1,)]


def test_too_few_steps_are_not_convergence():
    data = feasible(4, 12, 16, 2, 0)
    with pytest.raises(NotConvergedError, match="MAX_ITERATIONS"):
        QuadraticProgram(max_iterations=1)(**data)


def test_projection_of_infeasible_items():
    # Nearest to violating x <= 0 and x >= 1 equally: the middle; the free coordinate is unharmed.
    h = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    G = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    q = torch.tensor([-3.0, -2.0], dtype=torch.float64)
    layer = QuadraticProgram(on_failure="project")
    x, report = layer(Q=torch.eye(2).double(), q=q, G=G, h=h)
    assert report.status.tolist() == [Status.INFEASIBLE, Status.CONVERGED]
    assert report.counts["projected"].tolist() == [1, 0]
    expected = torch.tensor([[0.5, 2.0], [1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(x[0, 0], h)
    expected = torch.tensor([[0.5, -0.5], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


def test_project_still_raises_for_what_has_no_nearest_point():
    with pytest.raises(InfeasibleError, match="UNBOUNDED"):
        QuadraticProgram(on_failure="project")(
            Q=torch.zeros(2, 2).double(), q=torch.ones(2).double()
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_downward_cost_without_rows_is_named(backend):
    layer = QuadraticProgram(on_failure="mask", backend=backend)
    Q = torch.diag(torch.tensor([1.0, -1.0])).double()
    _, report = layer(Q=Q, q=torch.zeros(2).double())
    assert int(report.status) == Status.BREAKDOWN


def test_policy_words():
    with pytest.raises(SettingsError, match="'project'"):
        check_policy("projct")
    with pytest.raises(SettingsError, match="on_failure"):
        check_policy("project", can_project=False)
    report = Report(
        status=torch.tensor(int(Status.INFEASIBLE)),
        iterations=torch.tensor(1),
        residual=torch.tensor(1.0),
    )
    act_on_failure(report, "project", solution=None, what="layer")
    with pytest.raises(InfeasibleError):
        act_on_failure(report, "raise", solution=None, what="layer")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e7, 1e9, 1e12])
@pytest.mark.parametrize("form", ["free", "box", "cone"])
def test_a_steep_cost_alone_does_not_fall_without_end(form, size, backend):
    identity = torch.eye(3, dtype=torch.float64)
    q = size * torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64)
    rows = {}
    if form == "box":
        rows = {"G": torch.cat([identity, -identity]), "h": torch.ones(6, dtype=torch.float64)}
    if form == "cone":
        rows = {"G": -identity, "h": torch.zeros(3, dtype=torch.float64)}
    cones = (3,) if form == "cone" else ()
    layer = ConeProgram(second_order=cones, on_failure="mask", backend=backend)
    x, report = layer(Q=identity, q=q, **rows)
    assert report.status.item() != Status.UNBOUNDED
    if form == "free":
        torch.testing.assert_close(x, -q)
        assert report.all_converged
        identity[0, 0] = 0.0  # and here it does, along the first unknown
        _, report = layer(Q=identity, q=q)
        assert report.status.item() == Status.UNBOUNDED


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_known_of_how_far_lost_items_are_off(backend):
    identity = torch.eye(2, dtype=torch.float64)
    b = torch.tensor([[1.0], [torch.inf]], dtype=torch.float64)
    layer = QuadraticProgram(on_failure="mask", backend=backend)
    _, report = layer(Q=identity, q=b[:1, 0].expand(2), A=identity[:1], b=b)
    assert report.status.tolist() == [Status.CONVERGED, Status.NON_FINITE]
    assert report.residual.isnan().tolist() == [False, True]


def test_what_is_wrong_is_named_before_what_does_not_fit_it():
    one = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"h: got shape \(\), expected \(m\)"):
        QuadraticProgram()(Q=one, q=one[0], G=one, h=one[0, 0])
    with pytest.raises(SettingsError, match=r"Q: got a tensor of torch.sparse_coo.*to_dense"):
        QuadraticProgram()(Q=one.to_sparse(), q=one[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotated", [False, True])
def test_a_cost_of_zero_is_reached(rotated, backend):
    # Slope, curvature along the solution and multipliers vanish together: 0 / 0 by themselves.
    g = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(normal(g, 4, 4))[0] if rotated else torch.eye(4, dtype=torch.float64)
    Q = turn @ torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0]).double()) @ turn.mT
    A = torch.eye(4, dtype=torch.float64)[2:] @ turn.mT
    b = torch.tensor([[1.4, 2.0], [-3.0, 1e4]], dtype=torch.float64)
    x, report = QuadraticProgram(backend=backend)(
        Q=Q, q=torch.zeros(4).double(), G=A, h=b + 1.0, A=A, b=b
    )
    assert report.residual.max() < 1e-11
    torch.testing.assert_close(times(A, x), b)
    torch.testing.assert_close(x, times(A.mT, b), atol=1e-8, rtol=0)


def test_an_item_that_ended_on_the_boundary_does_not_stop_the_others():
    # Beside one that still iterates, the reference scales it once more, where no scaling is.
    rows = Rows(0, 3, (3,), torch.zeros(0, dtype=torch.float64))
    blocks = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1, 1)
    blocks[0, 0, 2, 2] = 0.0
    parts = [torch.ones(2, 3, dtype=torch.float64), blocks]
    a = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(_solve_blocks(rows, parts, a)[1], a[1])
