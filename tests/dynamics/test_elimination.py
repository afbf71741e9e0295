"""The elimination of Newton's matrix against dense solves, on a tree with and without fill."""

from __future__ import annotations

import pytest
import torch

import physim
from physim.dynamics._elimination import elimination_source
from physim.dynamics._integrator import newton_matrix
from physim.model.tree import build_tree
from solvers.kernels import aligned_empty, build_kernel, pack, unpack

LANES, ITEMS = 4, 6

TREE = """<mujoco><worldbody><body><freejoint/><geom size="0.1"/>
  <body pos="1 0 0"><joint/><geom size="0.1"/>
    <body pos="1 0 0"><joint type="ball"/><geom size="0.1"/></body>
    <body pos="0 1 0"><joint/><joint type="slide"/><geom size="0.1"/></body></body>
  <body pos="0 1 0"><joint/><geom size="0.1"/></body></body></worldbody></mujoco>"""
COUPLINGS = ((7, 11), (9, 10), (8, 12))
"""Degrees of freedom that a contact couples across branches, in items 2, 3, ..."""

BODY = """
Matrix a;
V blocks[36 * (NL + 1)], x[NV], y[NV];
for (int i = 0; i < 36 * NL; ++i) blocks[i] = blocks_in[36 * NL * block + i];
compose(blocks, before + 6 * NV * block, after + 6 * NV * block, a);
for (int i = 0; i < NV * NV; ++i) {
  const int row = i / NV, column = i % NV;
  const int late = row > column ? row : column, early = row > column ? column : row;
  const bool known = row == column || (a.earlier[WORDS * late + early / 64] >> early % 64 & 1);
  matrix[NV * NV * block + i] = known ? a.entry[i] : V(0.0);
}
for (int pair = 0; pair < PAIRS; ++pair) {
  const int i = pair_rows[2 * pair], j = pair_rows[2 * pair + 1];
  const V strength = strengths[PAIRS * block + pair];
  if (!vany(strength != 0.0)) continue;
  link_pair(a, i, j);
  a.entry[NV * i + j] += strength;
  a.entry[NV * j + i] -= 2.0 * strength;
}
factorise(a);
for (int i = 0; i < NV; ++i) x[i] = y[i] = right[NV * block + i];
solve_factored(a, x);
solve_transposed(a, y);
for (int i = 0; i < NV; ++i) {
  solved[NV * block + i] = x[i];
  turned[NV * block + i] = y[i];
}
"""


@pytest.fixture(scope="module")
def solve():
    """Elimination of random blocks: matrix, right-hand side and both solutions, per item."""
    tree = build_tree(physim.load_model(TREE))
    nv, links, pairs = tree.nv, len(tree.links), len(COUPLINGS)
    flat = ", ".join(str(dof) for pair in COUPLINGS for dof in pair)
    head = f"constexpr int NV = {nv}, NL = {links}, PAIRS = {pairs}, pair_rows[] = {{{flat}}};"
    names = "blocks_in before after strengths right matrix solved turned".split()
    kernel = build_kernel(
        "elimination",
        "\n".join([head, elimination_source(tree), BODY]),
        [(name, "V*") for name in names],
        lanes=LANES,
    )

    def run(strengths):
        generator = torch.Generator().manual_seed(2)

        def draw(*shape):
            return torch.randn(ITEMS, *shape, generator=generator, dtype=torch.float64)

        blocks = 0.2 * draw(links, 6, 6) + 3.0 * torch.eye(6, dtype=torch.float64)
        before = draw(nv, 6)
        after = before + 0.05 * draw(nv, 6)
        right = draw(nv)
        blocks_count = -(-ITEMS // LANES)
        outputs = [aligned_empty(blocks_count, n, LANES) for n in (nv * nv, nv, nv)]
        inputs = (blocks.flatten(1), before.flatten(1), after.flatten(1), strengths, right)
        kernel(blocks_count, *(pack(x, LANES) for x in inputs), *outputs)
        matrix, solved, turned = (unpack(x, ITEMS) for x in outputs)
        return tree, blocks, before, after, right, matrix.view(ITEMS, nv, nv), solved, turned

    return run


def test_composed_matrix_is_that_of_the_equations(solve) -> None:
    tree, blocks, before, after, _, matrix, _, _ = solve(torch.zeros(ITEMS, len(COUPLINGS)))
    for item in range(ITEMS):
        motions = [[(m[:3], m[3:]) for m in x[item].tolist()] for x in (before, after)]
        entries = newton_matrix(tree, *motions, blocks[item].tolist(), {})
        expected = torch.zeros(tree.nv, tree.nv, dtype=torch.float64)
        for place, value in entries.items():
            expected[place] = value
        torch.testing.assert_close(matrix[item], expected, rtol=1e-13, atol=1e-12)


def _strengths() -> torch.Tensor:
    """No coupling in the first two items, one more in each item after them."""
    strengths = torch.zeros(ITEMS, len(COUPLINGS), dtype=torch.float64)
    for item in range(2, ITEMS):
        strengths[item, : item - 1] = 0.5 * item
    return strengths


def test_elimination_solves_both_the_matrix_and_its_transpose(solve) -> None:
    strengths = _strengths()
    *_, right, matrix, solved, turned = solve(strengths)
    dense = matrix.clone()
    for pair, (i, j) in enumerate(COUPLINGS):
        dense[:, i, j] += strengths[:, pair]
        dense[:, j, i] -= 2.0 * strengths[:, pair]
    torch.testing.assert_close(solved, torch.linalg.solve(dense, right), rtol=1e-9, atol=1e-9)
    expected = torch.linalg.solve(dense.mT, right)
    torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-9)


def test_couplings_of_other_lanes_change_no_bit(solve) -> None:
    none = solve(torch.zeros(ITEMS, len(COUPLINGS), dtype=torch.float64))
    some = solve(_strengths())
    for alone, beside in zip(none[-2:], some[-2:], strict=True):
        assert torch.equal(alone[:2], beside[:2])
        assert not torch.equal(alone[2:], beside[2:])
