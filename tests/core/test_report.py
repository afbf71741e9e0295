"""Reports and solutions: one shape, time first, plain numbers for files."""

import json
import pickle

import pytest
import torch

from solvers.core import Report, SettingsError, ShapeError, Solution, Status


def make_report(status: list[int], **counts: list[int]) -> Report:
    number = len(status)
    return Report(
        status=torch.tensor(status, dtype=torch.int64),
        iterations=torch.arange(1, number + 1),
        residual=10.0 ** -torch.arange(number, dtype=torch.float64),
        counts={name: torch.tensor(values) for name, values in counts.items()},
    )


def test_converged_is_per_item() -> None:
    report = make_report([0, 1, 0])
    assert report.converged.tolist() == [True, False, True]
    assert not report.all_converged
    assert make_report([0, 0]).all_converged


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"halvings has shape \(2,\), expected \(3,\)"):
        make_report([0, 0, 0], halvings=[1, 2])


def test_status_must_be_int64() -> None:
    with pytest.raises(SettingsError, match="int32"):
        Report(
            status=torch.zeros(2, dtype=torch.int32),
            iterations=torch.zeros(2),
            residual=torch.zeros(2),
        )


def test_stack_then_index_gives_the_steps_back() -> None:
    steps = [make_report([0, 1], halvings=[3, 4]), make_report([2, 0], halvings=[5, 6])]
    stacked = Report.stack(steps)
    assert stacked.shape == (2, 2)
    for time, step in enumerate(steps):
        assert torch.equal(stacked[time].status, step.status)
        assert torch.equal(stacked[time].counts["halvings"], step.counts["halvings"])
        assert torch.equal(stacked[..., 1].residual[time], step.residual[1])


def test_stack_names_the_step_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="step 1"):
        Report.stack([make_report([0, 0]), make_report([0])])
    with pytest.raises(ShapeError, match="no report"):
        Report.stack([])


def test_summary_is_json_and_sets_bad_numbers_apart() -> None:
    report = Report(
        status=torch.tensor([0, 3, 0, 3]),
        iterations=torch.tensor([2, 9, 4, 1]),
        residual=torch.tensor([1e-9, torch.nan, 1e-7, torch.inf]),
    )
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert summary["items"] == 4
    assert summary["converged"] == 2
    assert summary["status"] == {"CONVERGED": 2, "NON_FINITE": 2}
    assert summary["iterations"] == {"min": 1, "median": 2, "max": 9, "non_finite": 0}
    assert summary["residual"]["non_finite"] == 2
    assert summary["residual"]["max"] == pytest.approx(1e-7)


def test_text_names_items_and_advice() -> None:
    text = str(make_report([0, 1, 0, 1]))
    assert "2 of 4 items converged" in text
    assert "MAX_ITERATIONS 2 at item 1, 3" in text
    assert Status.MAX_ITERATIONS.advice in text
    over_time = Report.stack([make_report([0, 0]), make_report([0, 4])])
    assert "INFEASIBLE 1 at (step, item) (1,1)" in str(over_time)


def test_a_single_solve_has_no_batch_axis() -> None:
    report = Report(status=torch.tensor(1), iterations=torch.tensor(7), residual=torch.tensor(0.5))
    assert report.failed_items() == [()]
    assert "0 of 1 items" in str(report)


def test_an_empty_batch_is_fine() -> None:
    report = make_report([])
    assert report.all_converged
    assert report.summary()["residual"]["max"] is None
    assert "0 of 0" in str(report)


def test_solution_forwards_its_report_and_survives_pickling() -> None:
    solution = Solution(value=torch.arange(2.0), report=make_report([0, 1]))
    copy = pickle.loads(pickle.dumps(solution))
    assert torch.equal(copy.value, solution.value)
    assert copy.converged.tolist() == [True, False]
    assert torch.equal(copy.residual_norm, solution.report.residual)
    assert torch.equal(copy.iterations, solution.report.iterations)
    assert "Tensor of shape (2,)" in str(solution)
