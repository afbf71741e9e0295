"""What a user may hand in by mistake is refused by name, with what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from solvers.core import SettingsError
from solvers.parallel import RayExecutor
from solvers.pde import Box, Condition, Data, Dirichlet, Initial, Neumann, Problem
from solvers.pinn import (
    MLP,
    PINN,
    XPINN,
    CausalWeights,
    Curriculum,
    DeepRitz,
    LagrangianPINN,
    TimeMarching,
    problems,
)
from solvers.pinn._arguments import WEIGHTS, network_of, weights_of

NET = MLP(width=4, depth=1)
OPTIONS: dict[str, Any] = {"network": NET, "points": 20, "backend": "sweep"}


@pytest.mark.parametrize(
    "make",
    [
        PINN,
        DeepRitz,
        LagrangianPINN,
        TimeMarching,
        lambda problem: XPINN(problem, pieces={"t": 2}),
        lambda problem: Curriculum(problem, coefficient="beta", values=(1,)),
    ],
)
@pytest.mark.parametrize(
    ("problem", "words"), [("convection", "the text 'convection'"), (NET, "MLP"), (None, "None")]
)
def test_what_is_no_problem(make: Callable[[Any], object], problem: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=f"problem: got {words}.*find_problem"):
        make(problem)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": MLP}, r"network: got the class MLP, expected MLP\(width=16"),
        ({"network": [20, 20]}, "network: got list"),
        ({"network": "mlp"}, "network: got the text 'mlp'"),
        ({"network": torch.zeros(3)}, "network: got Tensor"),
        ({"weights": "casual"}, "weights: got 'casual'.*did you mean 'causal'"),
        ({"weights": CausalWeights}, "weights: got the class CausalWeights"),
        ({"weights": [1.0, 2.0]}, "weights: got float"),
        ({"weights": 10.0}, "weights: got float.*gradient-norm"),
    ],
)
def test_what_is_no_network_and_no_weights(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PINN(problems.Convection(), **{**OPTIONS, **settings})


def test_weights_by_name_are_those_with_their_defaults() -> None:
    by_name = weights_of(["causal", "tangent-kernel"])
    assert [each.settings for each in by_name] == [
        CausalWeights().settings,
        WEIGHTS["tangent-kernel"]().settings,
    ]
    assert weights_of(()) == ()


def test_a_module_of_ones_own_is_a_network() -> None:
    module = nn.Linear(2, 1, dtype=torch.float64)
    assert getattr(network_of(module, NET), "module", None) is module
    assert network_of(None, NET) is NET


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "ray"}, "executor: got the text 'ray'.*around the call"),
        ({"executor": RayExecutor}, "executor: got the class RayExecutor"),
        ({"executor": 2}, "executor: got int"),
        ({"optimizer": torch.optim.Adam}, "optimizer: got <class.*Phase"),
        ({"optimizer": 3}, "optimizer: got 3"),
        ({"optimizer": ["adam", None]}, "optimizer: got None"),
        ({"optimizer": []}, "optimizer: got none"),
        ({"optimizer": "broyden"}, "did you mean 'self-scaled-broyden'"),
        ({"optimizer": "lfbgs"}, "did you mean 'lbfgs'"),
    ],
)
def test_what_a_fit_cannot_take(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PINN(problems.Convection(), **OPTIONS).fit(1, steps=1, **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("natural", "did you mean 'natural-gradient'"),
        ("broyden", "did you mean 'self-scaled-broyden'"),
        ("gns", "an energy is no sum of squares"),
        ("levenberg-marquardt", "an energy is no sum of squares"),
        (["adam", "lbfgs"], "expected one name"),
    ],
)
def test_energies_have_the_names_of_the_other_optimizers(name: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        DeepRitz(problems.Poisson(1), **OPTIONS, optimizer=name)


ENDS = Dirichlet(axis="x", side="both", u=0.0)
MEASURED = Data({"x": torch.tensor([0.5])}, u=torch.tensor([0.125]))


@pytest.mark.parametrize(
    ("conditions", "is_determined"),
    [
        ([ENDS], False),
        ([ENDS, MEASURED], True),
        # a flux that was measured beside the value
        ([ENDS, Neumann(axis="x", side="upper", u=-0.5)], True),
        ([ENDS, Dirichlet(axis="x", side="lower", u=0.0)], True),
    ],
)
def test_a_coefficient_needs_more_than_its_equation_does(
    conditions: list[Condition], is_determined: bool
) -> None:
    rod = Problem(
        name="rod", domain=Box(x=(0, 1)), residual=lambda u, x, k: k * u.xx + 1.0,
        coefficients={"k": 2.0}, unknown=("k",), conditions=conditions,
    )  # fmt: skip
    if is_determined:
        assert PINN(rod, **OPTIONS).parameter_count == 14
        return
    with pytest.raises(SettingsError, match=r"nothing determines k.*Data\(points, u=values\)"):
        PINN(rod, **OPTIONS)


def test_a_second_equation_may_determine_a_coefficient() -> None:
    heat = Problem(
        name="heat", domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, x, t, k: (u.t - k * u.xx, u.t + u),
        coefficients={"k": 2.0}, unknown=("k",), conditions=[Initial(u=0.0), ENDS],
    )  # fmt: skip
    assert PINN(heat, **OPTIONS).problem is heat
