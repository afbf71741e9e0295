"""Laws of the small vector algebra, on numbers, tensors and symbols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.kernels import Tape, algebra, evaluate, operation_count

COMPONENT = st.floats(-2, 2, allow_nan=False)
VECTOR = st.lists(COMPONENT, min_size=3, max_size=3)
QUATERNION = st.lists(COMPONENT, min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


def unit(q: list[float]) -> list[float]:
    return list(np.asarray(q) / np.linalg.norm(q))


@given(VECTOR, VECTOR)
def test_products_match_numpy(a: list[float], b: list[float]) -> None:
    assert algebra.dot(a, b) == pytest.approx(np.dot(a, b), abs=1e-12)
    np.testing.assert_allclose(algebra.cross(a, b), np.cross(a, b), atol=1e-12)
    np.testing.assert_allclose(algebra.matvec(algebra.skew(a), b), np.cross(a, b), atol=1e-12)
    np.testing.assert_allclose(algebra.outer(a, b), np.outer(a, b), atol=1e-12)
    np.testing.assert_allclose(algebra.vsub(algebra.vadd(a, b), b), a, atol=1e-12)


def test_matrices_match_numpy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    np.testing.assert_allclose(algebra.matmul(a.tolist(), b.tolist()), a @ b, atol=1e-14)
    np.testing.assert_allclose(algebra.transpose(a.tolist()), a.T)
    np.testing.assert_allclose(algebra.madd(a.tolist(), a.tolist()), 2 * a)
    np.testing.assert_allclose(algebra.msub(a.tolist(), a.tolist()), 0 * a)
    np.testing.assert_allclose(algebra.mscale(a.tolist(), 3.0), 3 * a)
    assert algebra.trace_of((a @ a.T).tolist()) == pytest.approx(np.sum(a * a))


@given(QUATERNION, QUATERNION, VECTOR)
def test_rotations_compose_and_keep_lengths(p: list[float], q: list[float], v: list[float]) -> None:
    p, q = unit(p), unit(q)
    once = algebra.rotate(p, algebra.rotate(q, v))
    np.testing.assert_allclose(
        algebra.rotate(algebra.quaternion_product(p, q), v), once, atol=1e-12
    )
    matrix = algebra.matmul(algebra.quaternion_matrix(p), algebra.quaternion_matrix(q))
    np.testing.assert_allclose(algebra.matvec(matrix, v), once, atol=1e-12)
    np.testing.assert_allclose(np.asarray(matrix) @ np.transpose(matrix), np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    back = algebra.rotate(algebra.conjugate(p), algebra.rotate(p, v))
    np.testing.assert_allclose(back, v, atol=1e-12)


def test_quarter_turn_about_z_sends_x_to_y() -> None:
    h = np.sqrt(0.5)
    np.testing.assert_allclose(algebra.rotate([h, 0, 0, h], [1, 0, 0]), [0, 1, 0], atol=1e-15)


def test_tensors_and_symbols_give_the_numbers() -> None:
    rng = np.random.default_rng(2)
    q, v = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    columns = lambda a: [torch.from_numpy(a[:, i]) for i in range(a.shape[1])]  # noqa: E731
    batch = algebra.matvec(algebra.quaternion_matrix(columns(q)), columns(v))
    tape = Tape()
    traced = algebra.matvec(algebra.quaternion_matrix(tape.inputs("q", 4)), tape.inputs("v", 3))
    run = evaluate(traced, {"q": q, "v": v})
    for i in range(5):
        single = algebra.matvec(algebra.quaternion_matrix(list(q[i])), list(v[i]))
        np.testing.assert_allclose([x[i] for x in batch], single, rtol=1e-13)
        np.testing.assert_allclose([x[i] for x in run], single, rtol=1e-13)


def test_structure_costs_nothing() -> None:
    tape = Tape()
    x = tape.inputs("x", 3)
    assert algebra.matvec(algebra.identity(3), x) == x
    assert algebra.rotate([1.0, 0.0, 0.0, 0.0], x) == x
    about_z = algebra.quaternion_matrix([tape.input("c"), 0.0, 0.0, tape.input("s")])
    assert about_z[2] == [0.0, 0.0, 1.0]
    counted = operation_count(algebra.matvec(about_z, x))
    assert counted["multiply"] == 6  # two products make the matrix, four use it


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 and 3"):
        algebra.dot([1, 2], [1, 2, 3])
