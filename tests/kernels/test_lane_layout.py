"""Lane blocks: where each item sits, padding, alignment, lane count of the machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import SettingsError, ShapeError
from solvers.kernels import aligned_empty, block_count, lane_count, pack, unpack


@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from([1, 2, 4, 8]))
def test_unpack_inverts_pack(batch: int, n: int, lanes: int) -> None:
    x = torch.from_numpy(np.random.default_rng(batch).normal(size=(batch, n)))
    buffer = pack(x, lanes)
    assert buffer.shape == (block_count(batch, lanes), n, lanes)
    assert buffer.data_ptr() % 64 == 0
    assert torch.equal(unpack(buffer, batch), x)
    for item in range(len(buffer) * lanes):
        real = x[min(item, batch - 1)]  # the last item fills up the last block
        assert torch.equal(buffer[item // lanes, :, item % lanes], real)


def test_result_of_unpack_is_a_copy() -> None:
    buffer = pack(torch.ones(4, 1, dtype=torch.float64), 1)
    items = unpack(buffer, 4)
    buffer.zero_()
    assert items.sum() == 4


def test_pack_takes_vectors_numpy_and_whole_numbers() -> None:
    assert pack(torch.arange(3.0), 2)[:, 0].tolist() == [[0, 1], [2, 2]]
    assert pack(np.arange(6.0).reshape(3, 2), 4).dtype == torch.float64
    assert pack(torch.arange(3, dtype=torch.int32), 2).dtype == torch.int32


def test_pack_into_a_given_buffer() -> None:
    out = aligned_empty(2, 3, 4)
    x = torch.rand(7, 3, dtype=torch.float64)
    assert pack(x, 4, out=out) is out
    assert torch.equal(unpack(out, 7), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.uint8])
def test_aligned_empty(dtype: torch.dtype) -> None:
    for shape in [(5,), (3, 7), (2, 3, 8), (0, 4)]:
        x = aligned_empty(*shape, dtype=dtype)
        assert x.shape == shape
        assert x.dtype == dtype
        assert x.is_contiguous()
        assert x.data_ptr() % 64 == 0


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3, 4\)"):
        pack(torch.zeros(2, 3, 4), 4)
    with pytest.raises(ShapeError, match="B > 0"):
        pack(torch.zeros(0, 3), 4)
    with pytest.raises(ShapeError, match="out has shape"):
        pack(torch.zeros(5, 3), 4, out=aligned_empty(1, 3, 4))
    with pytest.raises(ShapeError, match="9 items"):
        unpack(aligned_empty(2, 3, 4), 9)


def test_lane_count_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHYSIM_LANES", raising=False)
    assert lane_count() in {2, 4, 8}
    monkeypatch.setenv("PHYSIM_LANES", "1")
    assert lane_count() == 1
    monkeypatch.setenv("PHYSIM_LANES", "3")
    with pytest.raises(SettingsError, match="PHYSIM_LANES is '3'"):
        lane_count()
