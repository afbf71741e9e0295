"""What a user may hand to the loop by mistake is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from solvers.core import SettingsError
from solvers.training import FirstOrder, Objective, Phase, train

ADAM = Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam))


def bowl(**options: Any) -> Objective:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    return Objective(**{"parameters": [x], "terms": lambda: {"bowl": x.square().sum()}, **options})


def run(**options: Any) -> object:
    return train(**{"objective": bowl(), "schedule": ADAM, "steps": 1, **options})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: run(objective=3), "objective: got int, expected a solvers.training.Objective"),
        (lambda: run(schedule="adam"), "schedule: got the text 'a', expected a .*Phase"),
        (lambda: run(schedule=3), "schedule: got int"),
        (lambda: run(targets=3), "targets: got int, expected numbers by name"),
        (lambda: run(settings=3), "settings: got int"),
        (lambda: run(callback=3), "callback: got int, expected a function of a Record"),
        (lambda: run(overfit="a"), "overfit: got the text 'a'"),
        (lambda: run(checkpoint=3), "checkpoint: got int, expected a path"),
        (lambda: bowl(parameters=3), "parameters: got int, expected a torch module or tensors"),
        (lambda: bowl(parameters=[3]), "parameters: got int"),
        (lambda: bowl(terms=3), "terms: got int, expected a function"),
        (lambda: bowl(held_out=3), "held_out: got int"),
        (lambda: bowl(measures=[len]), "measures: got list"),
        (lambda: bowl(generator=3), "generator: got int"),
        (lambda: bowl(state=3), "state: got int, expected tensors by name"),
        (lambda: run(objective=bowl(terms=lambda: 3.0)), "terms: gave float, expected scalar"),
        (lambda: Phase(name="a", method=3), "method: got int"),  # type: ignore[arg-type]
        (
            lambda: Phase(name="a", method=len, least_decrease="a"),  # type: ignore[arg-type]
            "least_decrease: got the text 'a'",
        ),
    ],
)
def test_what_is_of_a_wrong_kind_is_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()
