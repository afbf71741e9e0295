"""The differentiation rule: first and second order, forward mode, transformations, failed items."""

from __future__ import annotations

import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from solvers.linear import (
    GMRES,
    MINRES,
    CallableOperator,
    Cholesky,
    ConjugateGradient,
    DenseOperator,
    FastDiagonalization,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    SparseLU,
    SparseOperator,
    linear_solve,
)

SHAPE = (2, 3, 3)
CELLS = torch.zeros(SHAPE, dtype=torch.long)
CELLS[1, 1, 1] = 1
CELLS[1, 2, 2] = 2
OUTSIDE = ((1, 1), (1, 1), (1, 2))
BACKENDS = ("reference", "kernel")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def multigrid(backend: str, rtol: float = 1e-13) -> ConjugateGradient:
    return ConjugateGradient(preconditioner=Multigrid(backend=backend), rtol=rtol)  # type: ignore[arg-type]


def pressure(b: Tensor, density: Tensor, values: Tensor, solver: LinearSolver) -> Tensor:
    A = PoissonOperator.from_cells(CELLS, density=density, values=values, outside=OUTSIDE)
    return linear_solve(A, b + A.source, solver).value


def fields() -> tuple[Tensor, Tensor, Tensor]:
    b, values = randn(*SHAPE), randn(*SHAPE, seed=1)
    density = randn(*SHAPE, seed=2).square() + 0.5
    return tuple(t.requires_grad_() for t in (b, density, values))  # type: ignore[return-value]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_right_hand_side_density_and_boundary_values(backend: str) -> None:
    assert gradcheck(
        lambda *inputs: pressure(*inputs, multigrid(backend)), fields(), check_forward_ad=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_of_a_pressure(backend: str) -> None:
    assert gradgradcheck(lambda *inputs: pressure(*inputs, multigrid(backend)), fields(), atol=1e-5)


DENSE: dict[str, tuple[LinearSolver, bool]] = {
    "cg": (ConjugateGradient(rtol=1e-13), True),
    "minres": (MINRES(rtol=1e-13), True),
    "cholesky": (Cholesky(), True),
    "gmres": (GMRES(rtol=1e-13), False),
    "lu": (SparseLU(), False),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_systems(name: str) -> None:
    solver, symmetric = DENSE[name]
    M = (randn(4, 4) + 5 * torch.eye(4, dtype=torch.float64)).requires_grad_()
    b = randn(2, 4, seed=1).requires_grad_()

    def solve(M: Tensor, b: Tensor) -> Tensor:
        A = DenseOperator(0.5 * (M + M.T) if symmetric else M, is_symmetric=symmetric)
        return linear_solve(A, b, solver).value

    assert gradcheck(solve, (M, b), check_forward_ad=True)
    assert gradgradcheck(solve, (M, b))


def test_sparse_and_callable_operators() -> None:
    pattern = SparseOperator.from_scipy(
        scipy.sparse.csr_array([[4.0, 1, 0], [-1, 5, 2], [0, 1, 3]])
    )
    b = randn(3).requires_grad_()
    values = pattern.values.clone().requires_grad_()
    assert gradcheck(
        lambda v, b: linear_solve(pattern.with_coefficients({"values": v}), b).value, (values, b)
    )
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def shifted(c: Tensor, b: Tensor) -> Tensor:
        A = CallableOperator(lambda x, c: x + c * x.roll(1, -1), (3,), {"c": c})
        return linear_solve(A, b, GMRES(rtol=1e-13)).value

    assert gradcheck(shifted, (c, b))
    assert gradgradcheck(shifted, (c, b))


def test_composed_operators() -> None:
    M = (randn(4, 4) + 5 * torch.eye(4, dtype=torch.float64)).requires_grad_()
    b = randn(4, seed=1).requires_grad_()
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def ridge(M: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        A = DenseOperator(M, is_symmetric=False)
        unit = DenseOperator(torch.eye(4, dtype=torch.float64), is_symmetric=False)
        return linear_solve(A.T @ A + weight * unit, b, GMRES(rtol=1e-13)).value

    assert gradcheck(ridge, (M, b, weight))
    expected = torch.linalg.solve(M.T @ M + weight * torch.eye(4, dtype=torch.float64), b)
    torch.testing.assert_close(ridge(M, b, weight), expected)


def test_boxes() -> None:
    b = randn(3, 4).requires_grad_()
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def solve(b: Tensor, scale: Tensor) -> Tensor:
        A = PoissonOperator.from_cells(
            torch.zeros(3, 4), coefficient=scale * torch.ones(3, 4).double(), outside=2
        )
        return linear_solve(A, b, FastDiagonalization()).value

    assert gradcheck(solve, (b, scale))


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_is_the_loop(backend: str) -> None:
    solver = multigrid(backend)
    _, density, values = (t.detach() for t in fields())
    many_b = randn(3, *SHAPE, seed=3)
    many_density = randn(3, *SHAPE, seed=4).square() + 0.5

    def loss(density: Tensor, b: Tensor) -> Tensor:
        return pressure(b, density, values, solver).square().sum()

    over_b = torch.func.vmap(lambda b: pressure(b, density, values, solver))(many_b)
    expected = torch.stack([pressure(b, density, values, solver) for b in many_b])
    torch.testing.assert_close(over_b, expected)
    over_both = torch.func.vmap(loss)(many_density, many_b)
    pairs = list(zip(many_density, many_b, strict=True))
    torch.testing.assert_close(over_both, torch.stack([loss(d, b) for d, b in pairs]))
    slopes = torch.func.vmap(torch.func.grad(loss))(many_density, many_b)
    torch.testing.assert_close(slopes, torch.stack([torch.func.grad(loss)(*p) for p in pairs]))


def test_forward_and_reverse_jacobians_are_the_inverse() -> None:
    A = PoissonOperator.from_cells(CELLS, outside=OUTSIDE)
    b = randn(*SHAPE)
    jacobians = [
        transform(lambda b: linear_solve(A, b, multigrid("kernel")).value)(b).reshape(18, 18)
        for transform in (torch.func.jacrev, torch.func.jacfwd)
    ]
    torch.testing.assert_close(*jacobians)
    inside = A.active.flatten()
    product = torch.from_numpy(A.to_scipy().toarray()) @ jacobians[0]
    unit = torch.diag(inside.double())
    torch.testing.assert_close(product, unit, rtol=1e-8, atol=1e-8)


def test_closed_boxes_have_gradients_in_the_range() -> None:
    A = PoissonOperator.from_cells(torch.zeros(4, 5))
    noise = randn(4, 5)
    b = (noise - noise.mean()).requires_grad_()
    w = randn(4, 5, seed=1)
    (w * linear_solve(A, b, multigrid("kernel", 1e-12)).value).sum().backward()
    inverse = torch.linalg.pinv(torch.from_numpy(A.to_scipy().toarray()))
    expected = (inverse @ w.flatten()).reshape(4, 5)
    assert b.grad is not None
    torch.testing.assert_close(b.grad, expected, rtol=1e-8, atol=1e-9)


def test_the_backward_pass_uses_the_same_set_up() -> None:
    A = PoissonOperator.from_cells(CELLS, outside=OUTSIDE)
    prepared = []

    class Counting:
        def prepare(self, operator: object) -> object:
            prepared.append(operator)
            return multigrid("kernel").prepare(operator)  # type: ignore[arg-type]

    b = randn(*SHAPE).requires_grad_()
    x = linear_solve(A, b, Counting()).value  # type: ignore[arg-type]
    (g,) = torch.autograd.grad(x.square().sum(), b, create_graph=True)
    g.sum().backward()
    assert len(prepared) == 1


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_closed_boxes_have_second_derivatives(backend: str) -> None:
    def solve(b: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
        A = PoissonOperator.from_cells(torch.zeros(3, 2), density=density)
        return linear_solve(A, b - b.mean(), multigrid(backend, 1e-13)).value

    density = (1.5 + randn(3, 2, seed=2).tanh()).requires_grad_()
    b = randn(3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(solve, (b, density))


def test_vmap_over_coefficients_and_then_right_hand_sides_is_the_loop() -> None:
    def solve(b: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
        A = PoissonOperator.from_cells(torch.zeros(4, 3), density=density, outside=2)
        return linear_solve(A, b, multigrid("kernel", 1e-12)).value

    right, densities = randn(3, 4, 3), 1.5 + randn(2, 4, 3, seed=2).tanh()
    inner = torch.func.vmap(solve, in_dims=(0, None))
    nested = torch.func.vmap(inner, in_dims=(None, 0))(right, densities)
    loop = torch.stack([torch.stack([solve(b, d) for b in right]) for d in densities])
    torch.testing.assert_close(nested, loop, rtol=1e-9, atol=1e-10)
