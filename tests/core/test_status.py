"""Status numbers are stable, advise, and combine item by item."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import Status, combine_status, count_status, full_status


def test_numbers_are_stable_because_kernels_and_files_use_them() -> None:
    assert {status.name: int(status) for status in Status} == {
        "CONVERGED": 0,
        "MAX_ITERATIONS": 1,
        "STALLED": 2,
        "NON_FINITE": 3,
        "INFEASIBLE": 4,
        "UNBOUNDED": 5,
        "BREAKDOWN": 6,
        "STIFF": 7,
    }


def test_every_status_has_advice_of_its_own() -> None:
    advice = {status.advice for status in Status}
    assert len(advice) == len(Status)
    assert all(len(text) > 20 for text in advice)


def test_full_status_is_int64_of_the_batch_shape() -> None:
    status = full_status((3, 2), Status.STALLED)
    assert status.dtype == torch.int64
    assert status.tolist() == [[2, 2]] * 3


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=9))
def test_an_item_keeps_its_first_failure(pairs: list[tuple[int, int]]) -> None:
    first, second = torch.tensor(pairs).T
    assert combine_status(first, second).tolist() == [a or b for a, b in pairs]


@given(st.lists(st.integers(0, 6), max_size=30))
def test_counts_agree_with_python(numbers: list[int]) -> None:
    counted = count_status(torch.tensor(numbers, dtype=torch.int64))
    assert counted == {Status(n): numbers.count(n) for n in set(numbers)}
    assert list(counted) == sorted(counted)
