"""Random subspaces: geometry of the maps, an exact toy problem, and drawn digits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from physim.learn.landscape import SubspaceModule, intrinsic_dimension, random_projection
from solvers.core import SettingsError, Status

KINDS = ("dense", "sparse", "fastfood")


def matrix(kind: str, size: int, dimension: int, seed: int = 0) -> Tensor:
    project = random_projection(size, dimension, kind=kind, seed=seed)  # type: ignore[arg-type]
    return torch.stack([project(e) for e in torch.eye(dimension, dtype=torch.float64)], 1)


@pytest.mark.parametrize(
    ("kind", "expected"), [("dense", 1.0), ("sparse", 1.0), ("fastfood", 2**0.5)]
)
def test_columns_have_length_one_and_are_nearly_orthogonal(kind: str, expected: float) -> None:
    # Independent entries give inner products of mean square 1/D. Those of a Fastfood block are
    # sums of G^2 with signs, of variance two each, hence 2/D over whole blocks of 256.
    size, dimension, squares = 5120, 200, []
    for seed in range(12 if kind == "fastfood" else 2):
        p = matrix(kind, size, dimension, seed)
        assert float((p.norm(dim=0) - 1).abs().max()) < 1e-6
        gram = p.T @ p
        off = gram - torch.diag(gram.diagonal())
        squares.append(float(off.square().sum()) / (dimension * (dimension - 1)) * size)
    assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(expected, rel=0.02)
    # Cropped to 5000 parameters the columns of Fastfood lose a little.
    cropped = matrix(kind, 5000, dimension).norm(dim=0)
    assert float((cropped / (0.989 if kind == "fastfood" else 1.0) - 1).abs().max()) < 0.02


@given(
    kind=st.sampled_from(KINDS), size=st.integers(1, 300), share=st.floats(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_maps_are_linear_and_have_an_exact_transpose(
    kind: str, size: int, share: float, seed: int
) -> None:
    dimension = max(1, int(share * size))
    project = random_projection(size, dimension, kind=kind, seed=seed)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(seed)
    z, w = torch.randn(2, dimension, generator=g, dtype=torch.float64)
    y = torch.randn(size, generator=g, dtype=torch.float64)
    assert torch.allclose(project(2 * z + w), 2 * project(z) + project(w), atol=1e-12)
    z.requires_grad_()
    (pulled,) = torch.autograd.grad(project(z), z, y)
    assert float(y @ project(w) - pulled @ w) == pytest.approx(0.0, abs=1e-10)


def test_no_coordinate_of_a_sparse_map_is_lost() -> None:
    assert float(matrix("sparse", 30, 30).norm(dim=0).min()) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_toy_problem_has_its_intrinsic_dimension(kind: str) -> None:
    # 1000 parameters, ten sums of a hundred each prescribed: ten equations, hence d = 10.
    g = torch.Generator().manual_seed(0)
    sums = torch.zeros(10, 1000, dtype=torch.float64)
    for row in range(10):
        sums[row, 100 * row : 100 * (row + 1)] = 1
    start = torch.randn(1000, generator=g, dtype=torch.float64)
    goal = torch.arange(1.0, 11.0, dtype=torch.float64)

    def best(dimension: int) -> float:
        a = sums @ matrix(kind, 1000, dimension)
        r = goal - sums @ start
        z = torch.linalg.lstsq(a, r[:, None]).solution[:, 0]
        return float((a @ z - r).square().sum())

    assert best(9) > 1e-3
    assert best(10) < 1e-16


def test_training_moves_the_coordinates_only_and_seed_reproduces_the_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    before = [p.detach().clone() for p in net.parameters()]
    x = torch.randn(20, 3, dtype=torch.float64)
    small = SubspaceModule(net, 6, seed=4)
    optimizer = torch.optim.Adam(small.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        (small(x) - 1).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    again = SubspaceModule(net, 6, seed=4)
    with torch.no_grad():
        again.z.copy_(small.z)
    assert torch.equal(again(x), small(x))
    assert list(small.state_dict()) == ["z", "start"]


def test_dimension_and_its_interval_over_seeds() -> None:
    def score(d: int | None, seed: int) -> float:
        return 1.0 if d is None else min(1.0, d / (20 + 10 * seed))

    found = intrinsic_dimension(score, [30, 10, 20, 40])
    assert found.dimension == 30
    assert found.interval == (20, 40)
    assert found.status == Status.CONVERGED
    none = intrinsic_dimension(score, [1, 2])
    assert none.dimension is None
    assert none.status == Status.MAX_ITERATIONS


def test_bad_dimensions() -> None:
    with pytest.raises(SettingsError, match="number of parameters"):
        SubspaceModule(nn.Linear(2, 2), 7)
    with pytest.raises(SettingsError, match="dimensions"):
        intrinsic_dimension(lambda d, seed: 1.0, [])


@pytest.mark.slow
def test_drawn_digits_need_about_as_many_dimensions_at_any_width(
    classifier: Callable[[int, int | None], float],
) -> None:
    found = {}
    for width in (20, 50, 100):
        found[width] = intrinsic_dimension(
            lambda d, seed, width=width: classifier(width, d),  # type: ignore[misc]
            [40, 60, 80, 120, 160, 200],
            seeds=[0],
        ).dimension
    assert all(d is not None and 80 <= d <= 200 for d in found.values()), found
    sizes = {20: 1930, 50: 6310, 100: 17610}
    assert found[20] / sizes[20] > 0.03  # type: ignore[operator]
    assert found[100] / sizes[100] < 0.02  # type: ignore[operator]
