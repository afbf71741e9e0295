"""Systems of a batch that one thread solves in the same memory, one after the other."""

from __future__ import annotations

import pytest
import torch

from solvers.core import Status
from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator, linear_solve


def solver(threads: int = 1) -> ConjugateGradient:
    return ConjugateGradient(preconditioner=Multigrid(backend="kernel", threads=threads))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("has_guess", [False, True])
@pytest.mark.parametrize("is_varied", [False, True])
def test_systems_that_share_memory_do_not_see_each_other(is_varied: bool, has_guess: bool) -> None:
    """Solids and broken items of one system leave nothing behind for the next."""
    cells = torch.zeros(4, 9, 11, 8, dtype=torch.long)
    cells[1, :, :6], cells[2, 5:], cells[3, 3:6, :, 2:] = 1, 1, 1
    density = randn(*cells.shape, seed=2).exp() if is_varied else None
    alone = [
        PoissonOperator.from_cells(c, density=None if density is None else density[i], outside=2)
        for i, c in enumerate(cells)
    ]
    A = PoissonOperator(
        tuple(torch.stack([one.couplings[axis] for one in alone]) for axis in range(3)),
        torch.stack([one.boundary for one in alone]),
    )
    b = randn(4, 9, 11, 8)
    guess = randn(4, 9, 11, 8, seed=1) if has_guess else None
    if guess is not None:
        guess[0] = torch.inf
    else:
        b[0] = torch.inf
    together = linear_solve(A, b, solver(), x0=guess, on_failure="mask")
    assert together.status[0] == Status.NON_FINITE
    apart = linear_solve(A, b, solver(threads=2), x0=guess, on_failure="mask")
    assert torch.equal(together.value[1:], apart.value[1:])
    for i in range(1, 4):
        start = None if guess is None else guess[i]
        one = linear_solve(alone[i], b[i], solver(), x0=start)
        torch.testing.assert_close(together.value[i], one.value, rtol=1e-6, atol=1e-6)
