"""Moving coefficients: prepared solvers that are updated, and backward passes that go on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from solvers.core import NonFiniteError
from solvers.linear import (
    GMRES,
    AdjointStart,
    AggregationMultigrid,
    AlgebraicMultigrid,
    ConjugateGradient,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    SparseOperator,
    choose_solver,
    linear_solve,
)

Scene = Callable[..., tuple[PoissonOperator, Tensor]]
Residual = Callable[[PoissonOperator, Tensor, Tensor], float]
SHAPE = (14, 11, 12)
OUTSIDE = ((1, 1), (1, 1), (1, 2))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moved(A: PoissonOperator, size: float, seed: int = 0) -> PoissonOperator:
    """Every number of an operator times its own exp(size n)."""
    names = enumerate(A.coefficients.items(), seed)
    return A.with_coefficients(
        {name: c * torch.exp(size * randn(*c.shape, seed=k)) for k, (name, c) in names}
    )


def ball(at: float, radius: float = 0.22, shape: tuple[int, ...] = SHAPE) -> PoissonOperator:
    """A solid ball on its way through the fluid along the first axis."""
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    inside = (x - at) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2 < radius**2
    return PoissonOperator.from_cells(inside.long(), outside=OUTSIDE)


@pytest.mark.parametrize("kind", ["smoke", "jumps", "mass"])
@pytest.mark.parametrize("shape", [SHAPE, (31, 20), (4, 5)])
def test_refilled_levels_are_those_of_a_new_preparation(
    kind: str, shape: tuple[int, ...], build_scene: Scene
) -> None:
    A, b = build_scene(kind, shape)
    B = (
        moved(A, 0.3)
        if kind != "smoke"
        else A.with_coefficients({name: 3.0 * c for name, c in A.coefficients.items()})
    )
    solver = ConjugateGradient(preconditioner=Multigrid())
    prepared = solver.prepare(A)
    prepared.solve(b)
    new, updated = solver.prepare(B).solve(b), prepared.update(B).solve(b)
    torch.testing.assert_close(updated.value, new.value, rtol=0.0, atol=0.0)
    assert int(updated.iterations) == int(new.iterations)


@pytest.mark.parametrize("kind", ["equal", "jumps"])
def test_a_solid_on_its_way(kind: str, residual_of: Residual) -> None:
    solver = ConjugateGradient(preconditioner=Multigrid())
    density = torch.ones(SHAPE, dtype=torch.float64)
    if kind == "jumps":
        density[:, :5] = 100.0
    prepared = None
    for step in range(9):
        A = ball(0.05 + 0.1 * step)
        if kind == "jumps":
            solid = (~A.active).long()
            A = PoissonOperator.from_cells(solid, density=density, outside=OUTSIDE)
        b = randn(*SHAPE, seed=step)
        prepared = solver.prepare(A) if prepared is None else prepared.update(A)
        x = prepared.solve(b).value
        assert residual_of(A, x, A.mask(b)) <= 1.01e-8
        assert float(x[~A.active].abs().max()) == 0.0
        new = solver.prepare(A).solve(b).value
        torch.testing.assert_close(x, new, rtol=1e-6, atol=1e-6 * float(new.abs().max()))


def test_closed_rooms_that_come_and_go(residual_of: Residual) -> None:
    """The null space is that of the new operator: walls rise, split the box, and fall."""
    solver = ConjugateGradient(preconditioner=Multigrid())
    prepared = None
    for rooms in (1, 2, 1, 3):
        cells = torch.zeros(16, 12, 10, dtype=torch.long)
        for wall in range(1, rooms):
            cells[wall * 16 // rooms] = 1
        A = PoissonOperator.from_cells(cells)
        free = A.null_space()
        assert free is not None
        b = free.remove(A.mask(randn(16, 12, 10, seed=rooms)))
        prepared = solver.prepare(A) if prepared is None else prepared.update(A)
        x = prepared.solve(b).value
        assert residual_of(A, x, b) <= 1.01e-8
        torch.testing.assert_close(free.remove(x), x)


def test_equal_couplings_that_differ_from_now_on(residual_of: Residual) -> None:
    A = ball(0.4)
    B = moved(A, 0.5)
    b = A.mask(randn(*SHAPE))
    prepared = ConjugateGradient(preconditioner=Multigrid()).prepare(A).update(B)
    assert residual_of(B, prepared.solve(b).value, b) <= 1.01e-8


def test_the_old_preparation_still_serves_the_old_operator(residual_of: Residual) -> None:
    A, B = ball(0.3), ball(0.6)
    b = A.mask(randn(*SHAPE))
    old = ConjugateGradient(preconditioner=Multigrid()).prepare(A)
    expected = old.solve(b).value
    new = old.update(B)
    torch.testing.assert_close(old.solve(b).value, expected, rtol=0.0, atol=0.0)
    b = B.mask(b)
    assert residual_of(B, new.solve(b).value, b) <= 1.01e-8


def test_gradients_go_back_through_a_sequence_of_updates() -> None:
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-13)
    cells = torch.zeros(4, 3, 3)
    b = randn(4, 3, 3)

    def last(logs: Tensor, *, is_updated: bool) -> Tensor:
        prepared, x = None, b
        for step in range(3):
            beta = torch.exp(0.1 * (step + 1) * logs)
            A = PoissonOperator.from_cells(cells, coefficient=beta, outside=2)
            known = prepared is not None and is_updated
            prepared = prepared.update(A) if known else solver.prepare(A)  # type: ignore[union-attr]
            x = prepared.solve(x).value
        return x

    logs = randn(4, 3, 3, seed=1).requires_grad_()
    weight = randn(4, 3, 3, seed=2)
    slopes = [
        torch.autograd.grad((weight * last(logs, is_updated=is_updated)).sum(), logs)[0]
        for is_updated in (True, False)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


def test_batches_are_refilled_together() -> None:
    density = randn(5, 9, 8, 7).square() + 0.3
    A = PoissonOperator.from_cells(torch.zeros(9, 8, 7), density=density, outside=2)
    B = moved(A, 0.2)
    b = randn(5, 9, 8, 7, seed=3)
    solver = ConjugateGradient(preconditioner=Multigrid())
    prepared = solver.prepare(A)
    prepared.solve(b)
    updated, new = prepared.update(B).solve(b).value, solver.prepare(B).solve(b).value
    torch.testing.assert_close(updated, new, rtol=0.0, atol=0.0)


def log_normal(size: float) -> PoissonOperator:
    beta = torch.exp(size * randn(20, 20, 20))
    return PoissonOperator.from_cells(torch.zeros(20, 20, 20), coefficient=beta, outside=2)


def turned(A: PoissonOperator, power: float) -> PoissonOperator:
    """Strong couplings where there were weak ones."""
    couplings = [c.flip(0).pow(power) for c in A.couplings]
    return PoissonOperator(couplings, A.boundary)


def test_pairs_are_kept_while_solves_stay_fast_and_sought_again_when_not() -> None:
    A, b = log_normal(3.0), randn(20, 20, 20, seed=1)
    solver = ConjugateGradient(preconditioner=AggregationMultigrid())
    same = solver.prepare(A).update(A.with_coefficients(A.coefficients))
    fresh = int(solver.prepare(A).solve(b).iterations)
    assert int(same.solve(b).iterations) == fresh
    # Pairs across other strong couplings are poor, and after one slow solve they are new.
    other = turned(A, 1.0)
    worn = same.update(other)
    slow = int(worn.solve(b).iterations)
    renewed = worn.update(other.with_coefficients(other.coefficients))
    quick = int(renewed.solve(b).iterations)
    assert quick == int(solver.prepare(other).solve(b).iterations)
    assert quick < slow / 1.5


def test_a_worn_preconditioner_that_fails_is_made_anew() -> None:
    """Pairs across torn couplings are not even definite."""
    A, b = log_normal(2.0), randn(20, 20, 20, seed=1)
    other = turned(A, 1.6)
    solver = ConjugateGradient(preconditioner=AggregationMultigrid())
    updated = solver.prepare(A).update(other).solve(b)
    assert int(updated.iterations) == int(solver.prepare(other).solve(b).iterations)


def test_algebraic_levels_are_kept_for_small_changes() -> None:
    pytest.importorskip("pyamg")
    grid = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(30, 30))
    unit = scipy.sparse.eye_array(30)
    matrix = (scipy.sparse.kron(grid, unit) + scipy.sparse.kron(unit, grid)).tocsr()
    b = randn(900)
    solver = ConjugateGradient(preconditioner=AlgebraicMultigrid(), rtol=1e-10)
    prepared = solver.prepare(SparseOperator.from_scipy(matrix))
    prepared.solve(b)
    rng = np.random.default_rng(0)
    for _ in range(2):
        matrix = matrix + scipy.sparse.diags_array(0.05 * rng.random(900))
        prepared = prepared.update(SparseOperator.from_scipy(matrix))
        expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), b.numpy())
        assert np.allclose(prepared.solve(b).value.numpy(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["auto", "gmres", "reference"])
def test_any_prepared_solver_may_be_updated(name: str, residual_of: Residual) -> None:
    A, B = ball(0.3), ball(0.5)
    b = B.mask(A.mask(randn(*SHAPE)))
    solver: LinearSolver = {
        "auto": choose_solver(A),
        "gmres": GMRES(preconditioner=Multigrid()),
        "reference": ConjugateGradient(preconditioner=Multigrid(backend="reference")),
    }[name]
    prepared = solver.prepare(A)
    prepared.solve(b)
    assert residual_of(B, prepared.update(B).solve(b).value, b) <= 1.01e-8


def test_an_update_with_broken_numbers_is_named_and_spoils_nothing() -> None:
    A = ball(0.3)
    b = A.mask(randn(*SHAPE))
    prepared = ConjugateGradient(preconditioner=Multigrid()).prepare(A)
    expected = prepared.solve(b).value
    boundary = A.boundary.clone()
    boundary[2, 2, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="boundary"):
        prepared.update(PoissonOperator(A.couplings, boundary))
    torch.testing.assert_close(prepared.solve(b).value, expected, rtol=0.0, atol=0.0)


# Backward passes


def test_a_backward_pass_goes_on_from_the_last_one(residual_of: Residual) -> None:
    solver = ConjugateGradient(preconditioner=Multigrid(backend="reference"))
    A = moved(ball(0.4), 0.3)
    weight = A.mask(randn(*SHAPE, seed=5))
    start = AdjointStart()
    counts = []
    for step in range(4):
        moving = moved(A, 1e-4 * step, seed=7)
        b = randn(*SHAPE).requires_grad_()
        # The loss changes its scale, as it does in training.
        loss = 0.1**step * (weight * linear_solve(moving, b, solver, adjoint=start).value).sum()
        (slope,) = torch.autograd.grad(loss, b)
        counts.append(start.iterations)
        assert residual_of(moving, slope, 0.1**step * weight) <= 1.01e-8
    assert max(counts[1:]) <= counts[0] - 3


def test_an_unrelated_start_is_never_worse_than_none() -> None:
    A = ball(0.4)
    solver = ConjugateGradient(preconditioner=Multigrid())
    start = AdjointStart()
    for seed in range(2):
        b = randn(*SHAPE, seed=seed).requires_grad_()
        linear_solve(A, b, solver, adjoint=start).value.backward(A.mask(randn(*SHAPE, seed=seed)))
        if seed == 0:
            cold = start.iterations
    assert start.iterations == cold


def test_gradients_from_a_start_are_right() -> None:
    start = AdjointStart()
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-13)
    cells = torch.zeros(3, 3, 2)

    def solve(b: Tensor, beta: Tensor) -> Tensor:
        A = PoissonOperator.from_cells(cells, coefficient=beta, outside=2)
        return linear_solve(A, b, solver, adjoint=start).value

    inputs = randn(3, 3, 2).requires_grad_(), (randn(3, 3, 2).square() + 0.5).requires_grad_()
    # What came before shows in the last digits.
    assert torch.autograd.gradcheck(solve, inputs, nondet_tol=1e-10)
    assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-5, nondet_tol=1e-8)


def test_a_start_for_unsymmetric_matrices_and_other_shapes() -> None:
    matrix = randn(30, 30) + 12 * torch.eye(30, dtype=torch.float64)
    start = AdjointStart()
    for shape in ((30,), (30,), (2, 30)):
        b = randn(*shape).requires_grad_()
        linear_solve(matrix, b, GMRES(rtol=1e-12), adjoint=start).value.sum().backward()
        expected = torch.linalg.solve(matrix.T, torch.ones(30, dtype=torch.float64))
        assert b.grad is not None
        torch.testing.assert_close(b.grad, expected.expand(shape), rtol=1e-9, atol=1e-12)


def test_a_failed_backward_pass_leaves_no_start() -> None:
    A = ball(0.4)
    b = A.mask(randn(*SHAPE)).requires_grad_()
    x = linear_solve(A, b.detach()).value
    start, weak = AdjointStart(), ConjugateGradient(max_iterations=1)
    solution = linear_solve(A, b, weak, x0=x, adjoint=start)
    assert int(solution.iterations) == 0
    solution.value.backward(A.mask(randn(*SHAPE, seed=1)))
    assert start.iterations == 1
    assert start.guess(b.detach(), 3) is None
