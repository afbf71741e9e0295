"""A solve inside of a step that does not converge ends training without loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from solvers.core import NotConvergedError, Report, Status, apply_on_failure
from solvers.training import FirstOrder, Objective, Phase, Training, train

ADAM = Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam))


def test_a_solve_that_fails_in_a_step_leaves_the_state_before_it(tmp_path: Path) -> None:
    """What is written is a run that ends there; without the cause it goes on as if nothing was."""

    def noisy(*, fails_at: int = 0) -> Objective:
        generator = torch.Generator().manual_seed(5)
        w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        calls = torch.zeros((), dtype=torch.int64)

        def terms() -> dict[str, Tensor]:
            goal = torch.rand(3, generator=generator, dtype=torch.float64)
            calls.add_(1)
            if int(calls) == fails_at:
                report = Report(
                    status=torch.tensor([0, 0, int(Status.STALLED)]),
                    iterations=torch.ones(3, dtype=torch.int64),
                    residual=torch.ones(3, dtype=torch.float64),
                )
                apply_on_failure(report, "raise", what="the layer")
            return {"noise": (w - goal).square().sum()}

        return Objective([w], terms, generator=generator, state={"calls": calls})

    def run(objective: Objective, steps: int, path: Path | None = None) -> Training:
        return train(objective, ADAM, steps=steps, record_every=1, checkpoint=path)

    path = tmp_path / "run.safetensors"
    torn = noisy(fails_at=7)
    words = r"step 7 failed(.|\n)*STALLED 1 at item 2"
    with pytest.raises(NotConvergedError, match=words) as error:
        run(torn, 12, path)
    assert isinstance(error.value.solution, Report)
    assert torch.equal(torn.parameters[0].detach(), run(noisy(), 6).value[0])
    whole, resumed = run(noisy(), 12), run(noisy(), 12, path)
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    assert torch.equal(resumed.value[0], whole.value[0])
