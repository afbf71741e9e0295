"""The sparse elimination of the Newton matrix against dense solves."""

from __future__ import annotations

import pytest
import torch

from physim.dynamics._elimination import analyse

CHAIN = [(0, 1, 2), (0, 1, 3, 4), (0, 5)]


@pytest.mark.parametrize("couplings", [CHAIN, [*CHAIN, (2, 4)], [tuple(range(6))]])
def test_elimination_solves_both_the_matrix_and_its_transpose(couplings) -> None:
    symbolic = analyse(6, couplings)
    generator = torch.Generator().manual_seed(1)
    dense = torch.zeros(6, 6, dtype=torch.float64)
    for clique in couplings:
        for i in clique:
            for j in clique:
                dense[i, j] = torch.randn((), generator=generator, dtype=torch.float64)
    dense += 6.0 * torch.eye(6)
    right = torch.randn(6, generator=generator, dtype=torch.float64)
    entries = {(i, j): float(dense[i, j]) for i in range(6) for j in range(6) if dense[i, j] != 0}
    factor = symbolic.factor(entries)
    solved = torch.tensor(symbolic.solve(factor, right.tolist()), dtype=torch.float64)
    turned = torch.tensor(symbolic.solve_transposed(factor, right.tolist()), dtype=torch.float64)
    torch.testing.assert_close(dense @ solved, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense.T @ turned, right, rtol=1e-12, atol=1e-12)


def test_a_tree_has_no_fill_and_a_coupling_fills_only_its_branches() -> None:
    tree = analyse(6, CHAIN)
    assert (2, 4) not in tree.pattern
    coupled = analyse(6, [*CHAIN, (2, 4)])
    assert (2, 4) in coupled.pattern
    assert (5, 2) not in coupled.pattern
