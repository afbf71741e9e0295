"""What training does when the residual between its points grows."""

from __future__ import annotations

from pathlib import Path

import torch

from solvers.core import Status
from solvers.optim import SelfScaledBroyden
from solvers.training import FirstOrder, Objective, Phase, Search, train


def adam() -> Phase:
    return Phase(
        name="Adam", method=lambda o: FirstOrder(o, lambda p: torch.optim.Adam(p, lr=1e-2))
    )


def test_overfitting_draws_points_anew_or_stops() -> None:
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    drawn: list[int] = []

    def make(can_resample: bool) -> Objective:
        with torch.no_grad():
            x.fill_(1.0)
        return Objective(
            [x],
            lambda: {"loss": x.square().sum()},
            # Rises while the loss falls.
            held_out=lambda: float(1 / x.detach().abs().item()),
            resample=(lambda generator: drawn.append(1)) if can_resample else None,
        )

    options = {
        "steps": 1000, "overfit": 2.0, "overfit_every": 1, "record_every": 1, "on_failure": "mask",
    }  # fmt: skip
    assert int(train(make(False), adam(), **options).status) == Status.STALLED
    train(make(True), adam(), **(options | {"steps": 95}))
    assert drawn


def test_overfitting_is_seen_at_the_same_steps_whatever_is_recorded() -> None:
    drawn: dict[int | float, list[int]] = {}
    for every in (1, 7, 1.5):
        seen = drawn.setdefault(every, [])
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        objective = Objective(
            [x],
            lambda x=x: {"loss": x.square().sum()},
            held_out=lambda x=x: float(1 / x.detach().abs().item()),
            resample=lambda _, x=x, seen=seen: seen.append(round(1e6 * x.item())),
        )
        train(objective, adam(), steps=95, overfit=2.0, record_every=every)
    assert drawn[1]
    assert drawn[1] == drawn[7] == drawn[1.5]


def test_points_drawn_after_overfitting_may_be_bad(tmp_path: Path) -> None:
    """A loss that is not finite there ends the training with its last state, as elsewhere."""
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    factor = torch.ones(1, dtype=torch.float64)
    objective = Objective(
        [x],
        lambda: {"loss": (factor * x.square()).sum()},
        held_out=lambda: float(1 / x.detach().abs().item()),
        resample=lambda _: factor.fill_(torch.nan),
        state={"factor": factor},
    )
    broyden = Phase(name="Broyden", method=lambda o: Search(o, SelfScaledBroyden))
    found = train(
        objective, broyden, steps=50, overfit=1.5, overfit_every=1, on_failure="mask",
        checkpoint=tmp_path / "run.safetensors",
    )  # fmt: skip
    assert int(found.status) == Status.NON_FINITE
    assert found.guilty == "loss"
    assert bool(torch.isfinite(found.value[0]).all())
