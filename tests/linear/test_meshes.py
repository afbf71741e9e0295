"""Matrices of unstructured finite elements, assembled by scikit-fem: agreement with SuperLU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from solvers.linear import (
    GMRES,
    AlgebraicMultigrid,
    ConjugateGradient,
    Jacobi,
    LinearSolver,
    SparseLU,
    SparseOperator,
    choose_solver,
    linear_solve,
)

skfem = pytest.importorskip("skfem")

PROBLEMS = ("poisson P1 planar", "poisson P2 planar", "poisson P1", "poisson P2", "elasticity P1")
SOLVERS: dict[str, LinearSolver | None] = {
    "auto": None,
    "direct": SparseLU(),
    "jacobi": ConjugateGradient(preconditioner=Jacobi(), rtol=1e-12, max_iterations=5000),
    "algebraic": ConjugateGradient(preconditioner=AlgebraicMultigrid(), rtol=1e-12),
    "aggregates": ConjugateGradient(
        preconditioner=AlgebraicMultigrid(method="smoothed-aggregation"), rtol=1e-12
    ),
}


def shaken(mesh: Any, part: float = 0.2) -> Any:
    """The mesh with its inner nodes moved by a part of the shortest edge."""
    rng = np.random.default_rng(0)
    nodes = mesh.p.copy()
    edges = mesh.facets if mesh.dim() == 2 else mesh.edges
    shortest = np.linalg.norm(nodes[:, edges[0]] - nodes[:, edges[1]], axis=0).min()
    inner = np.setdiff1d(np.arange(nodes.shape[1]), mesh.boundary_nodes())
    nodes[:, inner] += part * shortest * rng.uniform(-1, 1, (len(nodes), len(inner)))
    return type(mesh)(nodes, mesh.t)


@cache
def assembled(problem: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Matrix, right-hand side and solution on the nodes that are not held."""
    from skfem.helpers import ddot, dot, grad, sym_grad, trace

    kind, order, *rest = problem.split()
    planar = bool(rest)
    mesh = skfem.MeshTri.init_lshaped().refined(4) if planar else skfem.MeshTet().refined(3)
    mesh = shaken(mesh)
    name = f"Element{'Tri' if planar else 'Tet'}{order}"
    element = getattr(skfem, name)()
    if kind == "elasticity":
        element = skfem.ElementVector(element)

    @skfem.BilinearForm
    def form(u: Any, v: Any, w: Any) -> Any:
        if kind == "poisson":
            return (1 + w.x[0] ** 2) * dot(grad(u), grad(v))
        # Stresses of an elastic solid of Poisson ratio 0.3.
        return 2 * ddot(sym_grad(u), sym_grad(v)) + 1.5 * trace(sym_grad(u)) * trace(sym_grad(v))

    basis = skfem.Basis(mesh, element)
    matrix = form.assemble(basis)
    held = basis.get_dofs(lambda x: x[0] < 1e-9 + x[0].min()).all()
    inner = np.setdiff1d(np.arange(basis.N), held)
    matrix = matrix[inner][:, inner].tocsr()
    b = np.random.default_rng(1).normal(size=len(inner))
    return matrix, b, scipy.sparse.linalg.spsolve(matrix.tocsc(), b)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("jacobi", "aggregates") else [])
        for name in SOLVERS
    ],
)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_mesh_is_solved_to_1e_8(problem: str, name: str) -> None:
    if name in ("aggregates", "algebraic"):
        pytest.importorskip("pyamg")
    matrix, b, expected = assembled(problem)
    solver = SOLVERS[name]
    solution = linear_solve(SparseOperator.from_scipy(matrix), torch.from_numpy(b), solver)
    residual = np.linalg.norm(matrix @ solution.value.numpy() - b) / np.linalg.norm(b)
    assert abs(residual - float(solution.residual_norm)) <= 1e-13
    error = np.linalg.norm(solution.value.numpy() - expected) / np.linalg.norm(expected)
    assert error <= 1e-8


def test_gradients_with_respect_to_stiffness_follow_the_mesh() -> None:
    matrix, b, x = assembled("elasticity P1")
    A = SparseOperator.from_scipy(matrix)
    values = A.values.clone().requires_grad_()
    right = torch.from_numpy(b)
    weight = torch.from_numpy(np.random.default_rng(2).normal(size=len(b)))
    (weight @ linear_solve(A.with_coefficients({"values": values}), right).value).backward()
    adjoint = scipy.sparse.linalg.spsolve(matrix.T.tocsc(), weight.numpy())
    entries = matrix.tocoo()
    expected = torch.from_numpy(-adjoint[entries.row] * x[entries.col])
    assert values.grad is not None
    torch.testing.assert_close(values.grad, expected, rtol=1e-7, atol=1e-8 * float(x.std() ** 2))


def test_larger_meshes_take_algebraic_multigrid_by_themselves() -> None:
    pytest.importorskip("pyamg")
    mesh = shaken(skfem.MeshTri.init_lshaped().refined(6))
    basis = skfem.Basis(mesh, skfem.ElementTriP1())
    from skfem.models.poisson import laplace

    inner = np.setdiff1d(np.arange(basis.N), basis.get_dofs().all())
    matrix = laplace.assemble(basis)[inner][:, inner].tocsr()
    assert len(inner) > 10_000
    A = SparseOperator.from_scipy(matrix)
    b = np.random.default_rng(1).normal(size=len(inner))
    solver = choose_solver(A, rtol=1e-10, direct_size=5_000)
    solution = linear_solve(A, torch.from_numpy(b), solver)
    assert int(solution.iterations) < 30
    assert int(solution.report.counts["handed_over"]) == 0
    expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), b)
    error = np.linalg.norm(solution.value.numpy() - expected) / np.linalg.norm(expected)
    assert error <= 1e-8


def test_convection_with_a_diagonal_of_rounding() -> None:
    """Integrals that cancel leave 1e-16 on the diagonal, which is nothing to divide by."""
    from skfem.helpers import dot, grad

    @skfem.BilinearForm
    def form(u: Any, v: Any, _: Any) -> Any:
        return 0.05 * dot(grad(u), grad(v)) + (3 * grad(u)[0] - 2 * grad(u)[1]) * v

    basis = skfem.Basis(skfem.MeshTri.init_lshaped().refined(2), skfem.ElementTriP2())
    held = basis.get_dofs(lambda x: x[0] < 1e-9 + x[0].min()).all()
    inner = np.setdiff1d(np.arange(basis.N), held)
    matrix = form.assemble(basis)[inner][:, inner].tocsr()
    assert 0 < abs(matrix.diagonal()).min() < 1e-14
    A = SparseOperator.from_scipy(matrix)
    values = A.values.clone().requires_grad_()
    right = torch.from_numpy(np.random.default_rng(1).normal(size=len(inner))).requires_grad_()
    weight = np.random.default_rng(2).normal(size=len(inner))
    solver = GMRES(preconditioner=Jacobi(), rtol=1e-11, restart=60)
    x = linear_solve(A.with_coefficients({"values": values}), right, solver).value
    (torch.from_numpy(weight) @ x).backward()
    factors = scipy.sparse.linalg.splu(matrix.tocsc())
    expected = factors.solve(right.detach().numpy())
    adjoint = factors.solve(weight, trans="T")
    assert np.linalg.norm(x.detach().numpy() - expected) <= 1e-8 * np.linalg.norm(expected)
    assert right.grad is not None
    assert values.grad is not None
    assert np.linalg.norm(right.grad.numpy() - adjoint) <= 1e-8 * np.linalg.norm(adjoint)
    slopes = torch.from_numpy(-adjoint[A.rows.numpy()] * expected[A.columns.numpy()])
    assert float((values.grad - slopes).norm()) <= 1e-8 * float(slopes.norm())


def test_the_choice_of_a_method_waits_inside_of_vectorised_calls() -> None:
    matrix, b, x = assembled("elasticity P1")
    A = SparseOperator.from_scipy(matrix)
    right = torch.from_numpy(b)

    def solve(values: torch.Tensor) -> torch.Tensor:
        return linear_solve(A.with_coefficients({"values": values}), right).value

    solved = torch.func.vmap(solve)(torch.stack([A.values, 2.0 * A.values]))
    expected = torch.from_numpy(np.stack([x, 0.5 * x]))
    assert float((solved - expected).norm()) <= 1e-8 * float(expected.norm())
