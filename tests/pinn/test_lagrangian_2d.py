"""Labels in the plane: the equations they obey, what flows in, and the map inverted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solvers.core import InfeasibleError, NotConvergedError, Report, SettingsError, Status
from solvers.pde import Box, Dirichlet, Initial, Periodic, Problem, evaluation_grid, problems
from solvers.pde._jet import jet
from solvers.pde.functions import cos, exp, pi, sin
from solvers.pinn import MLP, PINN, LagrangianPINN, LagrangianResult, TwoBranchMLP, load
from solvers.pinn._labels import Transport, label_equations
from solvers.pinn._lagrangian_inversion import _Search

AXES = ("xi", "eta", "t")


def slope(f: Tensor, points: Tensor) -> Tensor:
    return torch.autograd.grad(f.sum(), points, create_graph=True, materialize_grads=True)[0]


def field(value: Tensor, points: Tensor) -> Any:
    """A function of labels and time with all its derivatives, by autograd."""

    def derivative(index: tuple[int, ...]) -> Tensor:
        found = value
        for axis, order in enumerate(index):
            for _ in range(order):
                found = slope(found, points)[:, axis]
        return found

    return jet(value, AXES, "field", derivative)


def untrained(solver: LagrangianPINN, theta: Tensor) -> LagrangianResult:
    return LagrangianResult(
        problem=solver.problem,
        transport=solver.transport,
        network=solver.pinn.field(theta),
        report=Report(
            status=torch.tensor(0),
            iterations=torch.tensor(0),
            residual=torch.tensor(0.0, dtype=torch.float64),
        ),
        history=[],
        settings={
            **solver.pinn.settings,
            "formulation": solver.formulation,
            "labels": {
                axis: ends
                for axis, ends, period in zip(
                    solver.problem.domain.space,
                    solver.label_domain.box.bounds.values(),
                    solver.label_domain.periods,
                    strict=False,
                )
                if not period
            },
        },
    )


def torus(residual: Any, **options: Any) -> Problem:
    return Problem(
        name="torus",
        domain=Box(x=(0, 2 * pi), y=(0, 2 * pi), t=(0, 1)),
        residual=residual,
        conditions=[
            Initial(u=lambda x, y: sin(x) * cos(y)),
            Periodic("x"),
            Periodic("y"),
        ],
        **options,
    )


def curled(u: Any, x: Any, y: Any, t: Any) -> Any:
    along, across = u + sin(y), cos(x) * t + u * u
    spread = (0.3 + 0.1 * sin(x) * u) * (u.xx + u.yy)
    return u.t + along * u.x + across * u.y - spread - u * x * t


@pytest.mark.parametrize("formulation", ["viscous", "lagrangian"])
def test_equations_over_labels_are_those_of_space(formulation: Any) -> None:
    """Of any map and any state, the one residual follows from the other by the chain rule."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 3, generator=generator, dtype=torch.float64).requires_grad_()
    xi, eta, t = points.unbind(1)
    x = xi + 0.2 * t * torch.sin(xi + 2 * eta + t)
    y = eta + 0.3 * t * torch.cos(2 * xi - eta) + t * t

    def state(place: Tensor) -> Tensor:
        a, b, time = place.unbind(1)
        return torch.sin(a + 0.3 * b) * torch.exp(-time * b) + a * b * time

    place = torch.stack([x, y, t], 1)
    W = state(place)
    transport = Transport(torus(curled))
    got = label_equations(
        transport, formulation, [field(x, points), field(y, points)], field(W, points), t
    )
    there = place.detach().clone().requires_grad_()
    u = state(there)
    du = slope(u, there)
    laplacian = slope(du[:, 0], there)[:, 0] + slope(du[:, 1], there)[:, 1]
    a, b, time = there.unbind(1)
    speed = torch.stack([u + torch.sin(b), torch.cos(a) * time + u * u], 1)
    nu = 0.3 + 0.1 * torch.sin(a) * u
    equation = du[:, 2] + (speed * du[:, :2]).sum(1) - nu * laplacian - u * a * time
    F = torch.stack([slope(x, points)[:, :2], slope(y, points)[:, :2]], 1)
    J = torch.linalg.det(F)
    crowding = torch.linalg.solve(F.mT, slope(J.log(), points)[:, :2, None])[..., 0]
    drift = nu[:, None] * crowding if formulation == "viscous" else 0.0
    rate = torch.stack([slope(x, points)[:, 2], slope(y, points)[:, 2]], 1)
    motion = rate - speed - drift
    expected = [motion[:, 0], motion[:, 1], equation + (motion * du[:, :2]).sum(1)]
    for residual, right in zip(got, expected, strict=True):
        assert torch.allclose(residual, J.sqrt() * right, rtol=1e-12, atol=1e-12)


def test_rigid_rotation_solves_the_equations_with_unit_jacobian() -> None:
    problem = problems.Rotation()
    points = torch.rand(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points.requires_grad_()
    xi, eta, t = points.unbind(1)
    c, s = torch.cos(2 * pi * t), torch.sin(2 * pi * t)
    x, y = c * xi - s * eta, s * xi + c * eta
    transport = Transport(problem)
    W = transport.start([xi, eta])
    residuals = label_equations(
        transport, "viscous", [field(x, points), field(y, points)], field(W, points), t
    )
    assert max(float(r.detach().abs().max()) for r in residuals) < 1e-13
    F = torch.stack([slope(x, points)[:, :2], slope(y, points)[:, :2]], 1)
    assert (torch.linalg.det(F) - 1.0).abs().max() < 1e-13
    exact = problem.reference_values(torch.stack([x, y, t], 1))["u"]
    assert torch.allclose(exact, W.detach(), atol=1e-13)


@pytest.fixture(scope="module")
def rotation() -> LagrangianResult:
    solver = LagrangianPINN(problems.Rotation(), MLP(width=12, depth=2), points=800)
    return solver.fit(30, steps=700, on_failure="mask")


def test_rotation_is_found(rotation: LagrangianResult) -> None:
    points = evaluation_grid(rotation.problem, 15, 15, 5)
    exact = rotation.problem.reference_values(points)["u"]
    with torch.no_grad():
        found = rotation(*points.unbind(1))
    assert (found - exact).norm() / exact.norm() < 2e-2
    assert abs(rotation.smallest_jacobian - 1.0) < 5e-2


def test_rotation_keeps_its_mass(rotation: LagrangianResult) -> None:
    box = rotation.label_domain.box
    masses = []
    for time in (0.0, 0.3, 0.7, 1.0):
        points = Box(xi=box.bounds["xi"], eta=box.bounds["eta"], t=(time, time + 1)).grid(81, 81, 1)
        points.requires_grad_()
        fields = rotation.network(points)
        rows = [slope(fields[:, i], points)[:, :2] for i in range(2)]
        J = torch.linalg.det(torch.stack(rows, 1))
        area = (box.upper - box.lower)[:2].prod() / 81**2
        masses.append(float((fields[:, 2] * J).sum().detach() * area))
    # the bump is far inside: the integral of a Gaussian, up to what the lattice misses at its rim
    assert masses == pytest.approx([2 * pi * 0.15**2] * 4, rel=3e-2)


def test_labels_outside_the_domain_are_as_far_as_they_come_from(rotation: LagrangianResult) -> None:
    for axis in ("xi", "eta"):
        lower, upper = rotation.label_domain.box.bounds[axis]
        assert -1.52 < lower < -(2**0.5)
        assert 2**0.5 < upper < 1.52


@pytest.mark.parametrize("name", ["Rotation", "Swirl", "ShearDiffusion"])
def test_labels_go_there_and_back(name: str) -> None:
    problem = getattr(problems, name)()
    solver = LagrangianPINN(problem, MLP(width=6, depth=1), points=50, backend="sweep")
    result = untrained(solver, 0.3 * solver.pinn.initial())
    domain = result.problem.domain
    generator = torch.Generator().manual_seed(3)
    points = domain.scale(torch.rand(80, 3, generator=generator, dtype=torch.float64))
    found = result.labels(*points.unbind(1), on_failure="mask")
    good = found.converged
    assert good.double().mean() > 0.9
    there = result.network(torch.cat([found.value, points[:, 2:]], 1))[good, :2]
    assert (there - points[good, :2]).abs().max() < 1e-10
    assert found.residual_norm[good].max() < 1e-10


def moved(x: float, y: float = 0.0) -> LagrangianResult:
    """Labels of the square that all move alike."""
    problem = problems.Rotation()
    solver = LagrangianPINN(
        problem, MLP(width=4, depth=1), points=50, backend="sweep",
        labels={"x": (-1, 1), "y": (-1, 1)},
    )  # fmt: skip
    theta = torch.zeros(solver.pinn.parameter_count, dtype=torch.float64)
    theta[-3:] = torch.tensor([x, y, 0.0])
    return untrained(solver, theta)


def test_places_that_no_label_reaches_are_named() -> None:
    result = moved(1.0)
    x = torch.linspace(-0.95, 0.95, 20, dtype=torch.float64)
    found = result.evaluate(x, 0.0, 0.5, on_failure="mask")
    is_reached = x > -0.5
    assert torch.equal(found.converged, is_reached)
    assert bool((found.status[~is_reached] == Status.INFEASIBLE).all())
    assert bool(found.value[~is_reached].isnan().all())
    start = problems.Rotation().conditions[0].values["u"]
    expected = start(x[is_reached] - 0.5, torch.zeros(1), 2 * pi, 0.15)
    assert torch.allclose(found.value[is_reached].detach(), expected.double(), atol=1e-12)
    with pytest.raises(InfeasibleError, match=r"no label reaches 5 of 20 points, the first x = -0"):
        result(x, 0.0, 0.5)


@pytest.mark.parametrize("periods", [(0.0, 0.0), (2.0, 0.0), (2.0, 0.5)])
def test_searches_begin_at_the_nearest_label_over_all_periods(periods: tuple[float, float]) -> None:
    lengths = torch.tensor(periods, dtype=torch.float64)
    domain = replace(moved(0.0).label_domain, periods=periods)
    search = _Search(torch.nn.Identity(), problems.Rotation(), domain)
    draw = torch.rand(2, 200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, places = draw[0] * torch.tensor([2.0, 0.5]), 4 * draw[1] - 2
    found = search._nearest(labels[None], labels, places, torch.zeros(200, dtype=torch.int64))
    turns = torch.cartesian_prod(torch.arange(-12, 13), torch.arange(-12, 13)) * lengths
    copies = (labels[:, None] + turns).view(-1, 2)
    distance = torch.cdist(places, copies).amin(1)
    # A chord is at least 2 / pi of its arc.
    assert bool(((found - places).norm(dim=1) <= pi / 2 * distance + 1e-6).all())
    exact = "donot_use_mm_for_euclid_dist"
    assert float(torch.cdist(found, copies, compute_mode=exact).amin(1).max()) < 1e-12


def test_crossed_labels_are_named() -> None:
    solver = LagrangianPINN(problems.Rotation(), MLP(width=1, depth=1), points=50, backend="sweep")
    theta = torch.zeros(solver.pinn.parameter_count, dtype=torch.float64)
    # X = xi - 3 t tanh(2 xi / half width): slopes upward early, downward in the middle later
    theta[0], theta[4] = 2.0, -3.0
    result = untrained(solver, theta)
    assert result.smallest_jacobian < 0
    x = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64)
    early = result.labels(x, 0.0, 0.1)
    assert early.all_converged
    late = result.labels(x, 0.0, 1.0, on_failure="mask")
    assert bool((late.status == Status.BREAKDOWN).all())
    with pytest.raises(NotConvergedError, match="labels have crossed at 9 of 9 points"):
        result(x, 0.0, 1.0)


def test_values_have_the_derivatives_of_the_field() -> None:
    solver = LagrangianPINN(
        problems.ShearDiffusion(), MLP(width=6, depth=1), points=50, backend="sweep"
    )
    theta = 0.3 * solver.pinn.initial()
    result = untrained(solver, theta)
    place = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 2.0, 0.6)]
    value = result(*place)
    slopes = torch.autograd.grad(value, [*place, result.network.theta])
    h = 1e-5
    for k in range(3):
        ahead, back = ([v.item() + (s * h if i == k else 0.0) for i, v in enumerate(place)]
                       for s in (1, -1))  # fmt: skip
        with torch.no_grad():
            expected = (result(*ahead) - result(*back)) / (2 * h)
        assert float(slopes[k]) == pytest.approx(float(expected), abs=1e-8)
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ahead, back = (
            untrained(solver, theta + s * h * direction)(1.0, 2.0, 0.6) for s in (1.0, -1.0)
        )
    expected = (ahead - back) / (2 * h)
    assert float(slopes[3] @ direction) == pytest.approx(float(expected), abs=1e-8)


def test_both_frames_agree_with_the_closed_form() -> None:
    problem = torus(
        lambda u: u.t + 2 * u.x - u.y - 0.1 * (u.xx + u.yy),
        reference=lambda x, y, t: exp(-0.2 * t) * sin(x - 2 * t) * cos(y + t),
    )
    network = MLP(width=10, depth=2)
    moving = LagrangianPINN(problem, network, points=400).fit(20, steps=300, on_failure="mask")
    fixed = PINN(problem, network, points=600).fit(20, steps=500, on_failure="mask")
    points = evaluation_grid(problem, 9, 9, 4)
    exact = problem.reference_values(points)["u"]
    with torch.no_grad():
        for result in (moving, fixed):
            assert (result(*points.unbind(1)) - exact).norm() / exact.norm() < 1e-2


@pytest.mark.slow
def test_published_equations_converge_to_their_own_solution() -> None:
    problem = problems.ShearDiffusion(speed=3.0, nu=0.1)
    network, found = MLP(width=14, depth=2), {}
    points = evaluation_grid(problem, 13, 13, 5)
    x, y, t = points.unbind(1)
    for formulation in ("viscous", "published"):
        solver = LagrangianPINN(problem, network, points=1500, formulation=formulation)
        result = solver.fit(60, steps=2500, on_failure="mask")
        with torch.no_grad():
            found[formulation] = result(x, y, t)
    exact = problem.reference_values(points)["u"]
    # labels keep their line y and diffuse as if they had not been sheared
    published = torch.exp(-0.1 * t) * torch.sin(x - 3.0 * t * torch.sin(y))
    assert (found["viscous"] - exact).norm() / exact.norm() < 1e-2
    assert (found["published"] - published).norm() / published.norm() < 1e-2
    assert (published - exact).norm() / exact.norm() > 5e-2
    assert (found["published"] - exact).norm() / exact.norm() > 5e-2


def inflow(**options: Any) -> Problem:
    given = {
        "residual": lambda u: u.t + 2.0 * u.x,
        "value": lambda t: sin(-2.0 * t),
        **options,
    }
    return Problem(
        name="inflow",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=given["residual"],
        conditions=[
            Initial(u=sin),
            Dirichlet(axis="x", side="lower", u=given["value"]),
            *given.get("more", []),
        ],
        reference=lambda x, t: sin(x - 2.0 * t),
    )


def test_what_flows_in_began_outside() -> None:
    solver = LagrangianPINN(inflow(), MLP(width=6, depth=1), points=100)
    lower, upper = solver.label_domain.box.bounds["xi"]
    assert -2.1 < lower < -2.0
    assert upper == 1.0
    result = solver.fit(10, steps=100, on_failure="mask")
    x = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        assert (result(x, t) - torch.sin(x - 2 * t)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"value": 0.0}, "what flows through the boundary at x = 0, t = "),
        ({"residual": lambda u: u.t + (2.0 + u) * u.x}, "depends on the state"),
        (
            {
                "residual": lambda u: u.t + 2.0 * u.x - 0.1 * u.xx,
                "more": [Dirichlet(axis="x", side="upper", u=0.0)],
            },
            "flows through the boundary at x = 0 and diffuses",
        ),
    ],
)
def test_other_inflow_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        LagrangianPINN(inflow(**options))


def test_diffusion_of_another_form_is_refused() -> None:
    with pytest.raises(SettingsError, match="form"):
        LagrangianPINN(torus(lambda u: u.t + u.x - u.xx - 2.0 * u.yy))
    with pytest.raises(SettingsError, match="form"):
        LagrangianPINN(torus(lambda u: u.t + u.x - u.xx - u.yy - 0.1 * u.xy))


@pytest.mark.parametrize("ends", [{"z": (0, 1)}, {"x": (0,)}, {"x": (1, -1)}])
def test_labels_of_other_axes_are_refused(ends: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="labels"):
        LagrangianPINN(problems.Rotation(), labels=ends)


def test_labels_beyond_a_wall_are_refused() -> None:
    with pytest.raises(SettingsError, match="lower end at the wall, 0"):
        LagrangianPINN(problems.Swirl(), labels={"x": (-1, 1)})


def test_two_branches_train_and_come_back_from_a_file(tmp_path: Path) -> None:
    solver = LagrangianPINN(problems.Swirl(), TwoBranchMLP(8, 2, 1), points=200)
    assert solver.pinn.parameter_count == (4 * 8 + 9 * 8 + 9 * 2) + (4 * 8 + 9)
    first, _ = solver.collocation.loss_and_gradient(solver.initial())
    result = solver.fit(60, steps=60, on_failure="mask")
    assert result.history[-1]["loss"] < 0.1 * first
    again = load(result.save(tmp_path / "swirl.safetensors"), problems.Swirl())
    x = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again(x, 0.6, 0.5), result(x, 0.6, 0.5))
    with pytest.raises(SettingsError, match="two branches"):
        PINN(problems.Convection(), TwoBranchMLP())  # type: ignore[arg-type]
