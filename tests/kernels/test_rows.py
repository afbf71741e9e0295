"""Rows of memory to lanes and back, for any number of lanes and any width."""

from __future__ import annotations

import pytest
import torch

from solvers.kernels import Kernel, aligned_empty, build_kernel, unpack

WIDTHS = (1, 2, 3, 7, 8, 9, 15, 16, 21)

GATHER = """
const double* rows[LANES];
for (int l = 0; l < LANES; ++l) rows[l] = from + (size_t)order[l] * width;
vgather_rows(rows, width, lanes);
"""
SCATTER = """
double* rows[LANES];
for (int l = 0; l < LANES; ++l) rows[l] = into + (size_t)order[l] * width;
vscatter_rows(lanes, width, rows, count);
"""


def kernel(name: str, body: str, lanes: int) -> Kernel:
    arguments = [("order", "int*"), ("width", "int"), ("lanes", "V*")]
    arguments += (
        [("from", "double*")] if body is GATHER else [("into", "double*"), ("count", "int")]
    )
    return build_kernel(name, body, arguments, lanes=lanes)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_every_lane_gets_its_row_and_leaves_it_in_its_place(lanes: int, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    table = torch.randn(lanes + 3, width, generator=generator, dtype=torch.float64)
    order = torch.randperm(lanes + 3, generator=generator, dtype=torch.int32)[:lanes]
    held = aligned_empty(1, width, lanes)
    kernel("gather", GATHER, lanes)(1, order, width, held, table)
    assert torch.equal(unpack(held, lanes), table[order.long()])

    count = max(lanes - 1, 1)
    into = torch.full_like(table, torch.nan)
    kernel("scatter", SCATTER, lanes)(1, order, width, held, into, count)
    written = order[:count].long()
    assert torch.equal(into[written], table[written])
    others = torch.ones(lanes + 3, dtype=torch.bool)
    others[written] = False
    assert bool(into[others].isnan().all())
