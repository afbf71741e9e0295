"""Objectives that bring their gradient and their weights: no autograd on the way."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from solvers.core import NonFiniteError, NumericalWarning, SettingsError, Status
from solvers.training import FirstOrder, Objective, Phase, train


def bowl(scale: list[float], seen: list[Tensor] | None = None) -> Objective:
    """Half the weighted square of two numbers, the weight first in ``scale``."""
    x = torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    stretch = torch.tensor([1.0, 50.0], dtype=torch.float64)

    def height(v: Tensor) -> float:
        return 0.5 * scale[0] * float((stretch * v * v).sum())

    def slope(v: Tensor) -> tuple[float, Tensor]:
        if seen is not None:
            seen.append(v.clone())
        return height(v), scale[0] * stretch * v

    return Objective(
        [x],
        lambda: {"bowl": torch.tensor(height(x.detach()))},
        loss_and_gradient=slope,
        reweight=lambda: scale.__setitem__(0, 2.0 * scale[0]),
        resample=lambda _: None,
    )


LBFGS = partial(torch.optim.LBFGS, max_iter=1, max_eval=25, line_search_fn="strong_wolfe")


@pytest.mark.parametrize("make", [partial(torch.optim.Adam, lr=0.3), LBFGS])
def test_first_order_methods_take_the_gradient_that_is_given(make: object) -> None:
    phase = Phase(name="own", method=lambda o: FirstOrder(o, make))  # type: ignore[arg-type]
    assert train(bowl([1.0]), phase, steps=400, tolerance=1e-6).report.all_converged


def test_a_point_is_not_evaluated_twice_in_a_row() -> None:
    seen: list[Tensor] = []
    phase = Phase(name="L-BFGS", method=lambda o: FirstOrder(o, LBFGS))
    train(bowl([1.0], seen), phase, steps=6, record_every=100)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_weights_are_chosen_before_the_first_step_and_every_so_often() -> None:
    scale = [1.0]
    phase = Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam))
    train(bowl(scale), phase, steps=7, reweight_every=3)
    assert math.log2(scale[0]) == 3
    fixed = bowl([1.0])
    fixed.reweight = None
    with pytest.raises(SettingsError, match="fixed weights"):
        train(fixed, phase, steps=1, reweight_every=3)


def test_lbfgs_forgets_the_gradients_of_another_loss() -> None:
    objective = bowl([1.0])
    method = FirstOrder(objective, LBFGS)
    for _ in range(3):
        method.step()
    method.refresh()
    start = objective.parameters[0].detach().clone()
    gradient = objective.loss_and_gradient(start)[1]  # type: ignore[misc]
    method.step()
    moved = objective.parameters[0].detach() - start
    torch.testing.assert_close(moved / moved.norm(), -gradient / gradient.norm())


def test_a_loss_that_is_not_finite_names_its_term() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    steps: list[int] = []

    def slope(v: Tensor) -> tuple[float, Tensor]:
        steps.append(1)
        return (math.nan if len(steps) > 4 else 1.0), torch.ones_like(v)

    def terms() -> dict[str, Tensor]:
        return {"fine": torch.tensor(1.0), "spoiled": torch.tensor(math.nan)}

    objective = Objective([x], terms, loss_and_gradient=slope)
    phase = Phase(name="Adam", method=lambda o: FirstOrder(o, torch.optim.Adam))
    with pytest.warns(NumericalWarning, match="spoiled"):
        result = train(objective, phase, steps=20)
    assert int(result.report.status) == Status.NON_FINITE
    steps.extend([1] * 9)
    with pytest.raises(NonFiniteError, match="spoiled"):
        train(Objective([x], terms, loss_and_gradient=slope), phase, steps=2)
