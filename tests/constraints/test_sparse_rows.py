"""Rows that touch few unknowns, and what items share: neither changes an answer."""

import pytest
import torch
from torch.autograd import forward_ad

from constraints import AffineEquality
from solvers.nonlinear.interior_point import ConeProgramData, solve_cone_programs
from solvers.nonlinear.interior_point._compiled import CompiledInteriorPoint

ITEMS = 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(kind, n):
    """G and the sizes of its cones."""
    bounds = torch.cat([torch.eye(n), -torch.eye(n)]).double()
    full = normal(3, n, seed=1)
    if kind == "bounds behind full rows":
        return torch.cat([full, bounds, torch.zeros(1, n).double()]), ()
    if kind == "bounds before full rows":
        return torch.cat([bounds, full]), ()
    if kind == "of each item its own":
        shifted = torch.stack([bounds.roll(item, 1) for item in range(ITEMS)])
        shifted[2, 4, : n // 2] = full[0, : n // 2]  # wide in one item only
        return shifted, ()
    assert kind == "bounds and cones"
    sizes = (3, 2, 4)
    cones = torch.zeros(9, n, dtype=torch.float64)
    cones[:, 2:11] = -torch.eye(9, dtype=torch.float64)
    cones[4] = 0.0  # a cone with a row of zeros
    return torch.cat([bounds, cones]), sizes


def programs(kind, n, p):
    G, sizes = rows(kind, n)
    root, A = normal(ITEMS, n, n, seed=2), normal(p, n, seed=3)
    inside = 0.1 * normal(ITEMS, n, seed=4)
    slack = 0.2 + normal(ITEMS, G.shape[-2], seed=5).abs()
    start = G.shape[-2] - sum(sizes)
    for size in sizes:
        slack[:, start] += 3.0
        start += size
    h = (G @ inside[..., None])[..., 0] + slack
    Q = root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    q, b = 2.0 * normal(ITEMS, n, seed=6), inside @ A.mT
    return ConeProgramData(Q, q, G, h, A, b, sizes, ITEMS)


def answers(solved, n):
    assert not solved.has_failures
    return (solved.x, solved.y, solved.z, solved.s, *solved.adjoint(normal(ITEMS, n, seed=7)))


def same(ours, theirs, accuracy):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=accuracy, rtol=accuracy)


@pytest.mark.parametrize("layout", ["within", "across"])
@pytest.mark.parametrize("n", [16, 21])
@pytest.mark.parametrize("p", [0, 2])
@pytest.mark.parametrize(
    "kind",
    [
        "bounds behind full rows",
        "bounds before full rows",
        "of each item its own",
        "bounds and cones",
    ],
)
def test_few_entries_give_what_the_reference_gives(kind, layout, n, p):
    data = programs(kind, n, p)
    solved = CompiledInteriorPoint(data, max_iterations=50, layout=layout)
    expected = solve_cone_programs(data, backend="reference")
    same(answers(solved, n), answers(expected, n), 1e-7)


@pytest.mark.parametrize("layout", ["within", "across"])
def test_the_order_of_rows_does_not_matter(layout):
    data = programs("bounds behind full rows", 21, 2)
    turned = data._replace(G=data.G.flip(0), h=data.h.flip(1))
    found = [
        answers(CompiledInteriorPoint(one, max_iterations=50, layout=layout), 21)
        for one in (data, turned)
    ]
    for which in (2, 3, 5):  # z, s and the gradient of h
        found[1] = (*found[1][:which], found[1][which].flip(1), *found[1][which + 1 :])
    same(*found, 1e-9)


@pytest.mark.parametrize("layout", ["within", "across"])
@pytest.mark.parametrize("shared", ["Q", "GA", "QGA"])
def test_what_items_share_may_as_well_be_repeated(layout, shared):
    data = programs("bounds behind full rows", 21, 2)._replace(Q=normal(21, 21, seed=8))
    data = data._replace(Q=data.Q @ data.Q.mT)
    scale = 1.0 + torch.arange(ITEMS, dtype=torch.float64)[:, None, None] / ITEMS
    own = data._replace(
        **{k: scale * getattr(data, k) for k in "QGA" if k not in shared},
    )
    repeated = own._replace(
        **{k: getattr(own, k).expand(ITEMS, -1, -1).contiguous() for k in shared}
    )
    found = [
        answers(CompiledInteriorPoint(one, max_iterations=50, layout=layout), 21)
        for one in (own, repeated)
    ]
    same(*found, 1e-12)


def test_a_batch_is_projected_as_its_items_are_and_in_either_direction():
    layer = AffineEquality(normal(3, 8))
    x, b = normal(5, 8, seed=1).requires_grad_(), normal(5, 3, seed=2).requires_grad_()
    one_by_one = torch.stack([layer(x[i], b[i]) for i in range(5)])
    torch.testing.assert_close(layer(x, b), one_by_one, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(layer, (x, b))
    assert torch.autograd.gradgradcheck(layer, (x, b))
    only_b = torch.autograd.grad(layer(x.detach(), b).square().sum(), b)
    both = torch.autograd.grad(one_by_one.square().sum(), (x, b))
    torch.testing.assert_close(only_b[0], both[1], atol=1e-13, rtol=0)
    ways = normal(5, 8, seed=3), normal(5, 3, seed=4)
    with forward_ad.dual_level():
        pair = (
            forward_ad.make_dual(one.detach(), way) for one, way in zip((x, b), ways, strict=True)
        )
        moved = forward_ad.unpack_dual(layer(*pair)).tangent
    expected = layer(x + ways[0], b + ways[1]) - layer(x, b)
    torch.testing.assert_close(moved, expected.detach(), atol=1e-12, rtol=0)
    _, along = torch.func.jvp(layer, (x.detach(), b.detach()), ways)
    torch.testing.assert_close(along, moved, atol=1e-14, rtol=0)
