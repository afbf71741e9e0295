"""What a user may hand to an engine by mistake is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solvers.core import PhysimError
from solvers.derivatives import (
    Branches,
    CompiledEngine,
    Layers,
    ModuleLayers,
    NestedEngine,
    ResidualProgram,
    SweepEngine,
    residual_engine,
    trace_residual,
)

POINTS = torch.rand(6, 2, dtype=torch.float64)


def program(**changes: Any) -> ResidualProgram:
    options: dict[str, Any] = {
        "residual": lambda f, x, c: f["u"].t + c["k"] * f["u"].x,
        "layers": Layers((2, 4, 1)),
        "fields": ["u"],
        "coordinates": ["x", "t"],
        "probe": POINTS,
        "coefficients": {"k": 1.0},
        **changes,
    }
    return ResidualProgram(options.pop("residual"), options.pop("layers"), **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"residual": 3}, "residual: got int, expected a function"),
        ({"layers": 3}, "layers: got int"),
        ({"fields": 3}, "fields: got int"),
        ({"coordinates": 3}, "coordinates: got int"),
        ({"probe": 3}, "probe: got int, expected a tensor"),
        ({"coefficients": 3}, "coefficients: got int"),
        ({"coefficients": {"k": "a"}}, "k: got the text 'a', expected one finite number"),
        ({"unknown": "k"}, r"unknown: got the text 'k', expected a tuple"),
        ({"transform": 3}, "transform: got int"),
    ],
)
def test_what_is_no_part_of_a_program(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PhysimError, match=words):
        program(**changes)


@pytest.mark.parametrize("kind", [CompiledEngine, SweepEngine, NestedEngine])
@pytest.mark.parametrize("theta", [3, None, torch.zeros(16), torch.zeros(18), torch.zeros(1, 17)])
def test_every_engine_wants_all_parameters_in_a_row(kind: Any, theta: Any) -> None:
    engine = kind(program(), POINTS)
    for name in ("loss", "residuals", "loss_and_gradient", "sum_and_gradient", "jacobian"):
        with pytest.raises(PhysimError, match="theta: got"):
            getattr(engine, name)(theta)


@pytest.mark.parametrize("kind", [CompiledEngine, SweepEngine, NestedEngine, residual_engine])
def test_every_engine_wants_points_of_the_program(kind: Any) -> None:
    for points in (3, torch.zeros(6), torch.zeros(6, 3)):
        with pytest.raises(PhysimError, match="points: got"):
            kind(program(), points)
    with pytest.raises(PhysimError, match="weights: got int"):
        kind(program(), POINTS, 3)


def test_networks_and_traces() -> None:
    with pytest.raises(PhysimError, match="sizes: got int"):
        Layers(3)  # type: ignore[arg-type]
    with pytest.raises(PhysimError, match="parts: got int"):
        Branches((3,))  # type: ignore[arg-type]
    with pytest.raises(PhysimError, match="module: got int"):
        ModuleLayers(3, 2, 1)  # type: ignore[arg-type]
    with pytest.raises(PhysimError, match="inputs: got int"):
        Layers((2, 4, 1))(torch.zeros(17), 3)  # type: ignore[arg-type]
    with pytest.raises(PhysimError, match="outputs: got 1.5"):
        trace_residual(len, fields=["u"], coordinates=["x"], outputs=1.5)  # type: ignore[arg-type]
