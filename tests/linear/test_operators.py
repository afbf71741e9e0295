"""Laws of operators: adjointness, symmetry, agreement with matrices, composition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import SettingsError, ShapeError
from solvers.core.testing import check_adjoint, check_gradients
from solvers.linear import (
    CallableOperator,
    DenseOperator,
    LinearOperator,
    PoissonOperator,
    SparseOperator,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sparse(m: int, n: int, seed: int = 0) -> SparseOperator:
    rng = np.random.default_rng(seed)
    return SparseOperator.from_scipy(scipy.sparse.random_array((m, n), density=0.5, rng=rng))


def grid(shape: tuple[int, ...] = (3, 4, 5), **options: object) -> PoissonOperator:
    cells = torch.zeros(shape, dtype=torch.long)
    cells[(1,) * len(shape)] = 1
    cells[(-1,) * len(shape)] = 2
    return PoissonOperator.from_cells(cells, **options)  # type: ignore[arg-type]


OPERATORS: dict[str, LinearOperator] = {
    "dense": DenseOperator(randn(3, 4)),
    "sparse": sparse(5, 4),
    "callable": CallableOperator(
        lambda x, c: c * torch.cat([x, x.flip(-1)], -1), (3,), {"c": randn(6)}, codomain=(6,)
    ),
    "poisson": grid(density=torch.rand(3, 4, 5, dtype=torch.float64) + 0.5, mass=0.3),
    "periodic": grid((4, 5), periodic=(True, False), spacing=(0.1, 2.0)),
    "product": DenseOperator(randn(2, 5)) @ sparse(5, 4),
    "sum": DenseOperator(randn(4, 4)) + sparse(4, 4),
    "multiple": -2.5 * sparse(5, 4),
    "normal": sparse(5, 4).T @ sparse(5, 4),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_transpose_is_the_adjoint(name: str) -> None:
    A = OPERATORS[name]
    x, y = torch.zeros(A.domain, dtype=A.dtype), torch.zeros(A.codomain, dtype=A.dtype)
    check_adjoint(A.apply, A.T.apply, x, y)


@pytest.mark.parametrize("name", OPERATORS)
def test_product_agrees_with_the_matrix_and_broadcasts(name: str) -> None:
    A = OPERATORS[name]
    x = randn(2, 3, *A.domain)
    expected = (A.to_scipy() @ x.reshape(6, -1).numpy().T).T
    np.testing.assert_allclose((A @ x).reshape(6, -1), expected, atol=1e-12)
    for index in np.ndindex(2, 3):
        torch.testing.assert_close((A @ x)[index], A @ x[index])


@pytest.mark.parametrize(
    "name", [n for n in OPERATORS if n not in ("callable", "product", "normal")]
)
def test_diagonal_is_that_of_the_matrix(name: str) -> None:
    A = OPERATORS[name]
    expected = A.to_scipy().diagonal()
    np.testing.assert_allclose(A.diagonal().numpy().ravel()[: expected.size], expected, atol=1e-13)


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_of_the_product(name: str) -> None:
    A = OPERATORS[name]
    inputs = {"x": randn(2, *A.domain), **A.coefficients}

    def product(x: Tensor, **coefficients: Tensor) -> Tensor:
        return A.with_coefficients(coefficients).apply(x)

    check_gradients(product, inputs, directions=3)


@pytest.mark.parametrize("name", OPERATORS)
def test_pull_back_is_the_gradient_of_the_pairing(name: str) -> None:
    A = OPERATORS[name]
    x, y = randn(2, *A.domain), randn(2, *A.codomain, seed=1)
    leaves = {key: value.clone().requires_grad_() for key, value in A.coefficients.items()}
    pairing = (y * A.with_coefficients(leaves).apply(x)).sum()
    expected = torch.autograd.grad(pairing, list(leaves.values()))
    for slope, (key, value) in zip(expected, A.pull_back(x, y).items(), strict=True):
        torch.testing.assert_close(value, slope, msg=key)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
    periodic=st.booleans(),
)
def test_grid_operator_is_symmetric_positive_and_blind_to_constants(
    shape: list[int], seed: int, periodic: bool
) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 2, shape)
    cells.flat[0] = 0
    density = torch.from_numpy(rng.uniform(0.1, 10, shape))
    A = PoissonOperator.from_cells(cells, density=density, periodic=periodic)
    matrix = A.to_scipy().toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12 * max(1.0, abs(matrix).max())
    ones = A.mask(torch.ones(shape, dtype=torch.float64))
    assert float((A @ ones).abs().max()) < 1e-13 * max(1.0, abs(matrix).max())


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_second_order_for_a_smooth_solution(axes: int) -> None:
    # Zero values one cell beyond the last, walls at the other sides: x = product of cosines.
    errors, sizes = [], (6, 12, 24)
    for n in sizes:
        h = 1.0 / n
        A = PoissonOperator.from_cells(
            torch.zeros((n,) * axes, dtype=torch.long), spacing=h, outside=((1, 2),) * axes
        )
        # The zero of the cosine lies at the centre of the first air cell.
        k = 0.5 * np.pi / (1.0 + 0.5 * h)
        line = torch.cos(k * (torch.arange(n, dtype=torch.float64) + 0.5) * h)
        x = line
        for _ in range(axes - 1):
            x = x.unsqueeze(-1) * line
        errors.append(float((A @ x - axes * k**2 * x).abs().max()) / k**4)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.15)


def test_known_values_and_fluxes_reproduce_a_linear_field() -> None:
    # x = 2 i + 3 j: known at both ends of the first axis, through its flux at those of the second.
    from solvers.linear import linear_solve

    n, m = 6, 5
    i, j = torch.meshgrid(torch.arange(n + 2.0), torch.arange(m * 1.0), indexing="ij")
    field = (2 * i + 3 * j).double()
    cells = torch.zeros(n + 2, m, dtype=torch.long)
    cells[0] = cells[-1] = 2
    flux = torch.full((n + 2, m + 1), 3.0, dtype=torch.float64)
    A = PoissonOperator.from_cells(cells, values=field, fluxes=(None, flux))
    x = linear_solve(A, torch.zeros_like(field) + A.source).value
    torch.testing.assert_close(x[1:-1], field[1:-1], rtol=1e-7, atol=1e-7)


def test_spacing_scales_the_operator() -> None:
    A, B = grid(spacing=1.0), grid(spacing=0.1)
    x = randn(3, 4, 5)
    torch.testing.assert_close(B @ x, 100 * (A @ x))


def test_moving_and_converting() -> None:
    A = grid(density=torch.rand(3, 4, 5, dtype=torch.float64) + 0.5)
    B = A.to(dtype=torch.float32)
    assert B.dtype == torch.float32
    x = randn(3, 4, 5)
    torch.testing.assert_close((B @ x.float()).double(), A @ x, rtol=1e-5, atol=1e-5)
    M = A.to_scipy()
    from_torch = SparseOperator.from_torch(
        torch.sparse_coo_tensor(
            np.vstack(M.nonzero()), torch.from_numpy(M.tocoo().data), M.shape, check_invariants=True
        )
    )
    torch.testing.assert_close(from_torch @ x.flatten(), (A @ x).flatten())


CELLS = torch.zeros(3, 3, dtype=torch.long)
BAD = {
    "no fluid": (lambda: PoissonOperator.from_cells(torch.ones(3, 3)), "no fluid"),
    "another kind": (lambda: PoissonOperator.from_cells(CELLS + 7), "0 fluid, 1 solid"),
    "four axes": (lambda: PoissonOperator.from_cells(torch.zeros(2, 2, 2, 2)), "1 to 3 axes"),
    "density": (lambda: PoissonOperator.from_cells(CELLS, density=randn(4, 3)), "density"),
    "both": (
        lambda: PoissonOperator.from_cells(CELLS, density=randn(3, 3), coefficient=randn(3, 3)),
        "expected one",
    ),
    "spacing": (lambda: PoissonOperator.from_cells(CELLS, spacing=(1.0, -1.0)), "spacing"),
    "outside": (lambda: PoissonOperator.from_cells(CELLS, outside=0), "outside"),
    "flux": (lambda: PoissonOperator.from_cells(CELLS, fluxes=(randn(3, 3), None)), "every face"),
    "couplings": (lambda: PoissonOperator([randn(1, 3), randn(3, 2)], randn(3, 3)), "couplings"),
    "vector": (lambda: PoissonOperator.from_cells(CELLS) @ randn(4), "last axes"),
    "type": (lambda: PoissonOperator.from_cells(CELLS) @ randn(3, 3).float(), "float64"),
    "product": (lambda: DenseOperator(randn(2, 3)) @ DenseOperator(randn(2, 3)), "A @ B"),
    "integers": (lambda: DenseOperator(torch.eye(3, dtype=torch.long)), "floating"),
    "index": (
        lambda: SparseOperator(torch.tensor([5]), torch.tensor([0]), randn(1), (2, 2)),
        "rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises((ShapeError, SettingsError), match=words):
        make()
