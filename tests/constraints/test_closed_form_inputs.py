"""Wrong arguments of closed forms: every error names the argument, and what would be right."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from constraints import (
    AffineEquality,
    Box,
    DirichletLift,
    DivergenceFree,
    InitialLift,
    Integral,
    PeriodicLift,
    PhysimError,
    SettingsError,
    ShapeError,
    Simplex,
)

ROWS = torch.eye(2, 4, dtype=torch.float64)
FIELD = torch.ones(3, 4, dtype=torch.float64)
FLOW = torch.ones(2, 4, 4, dtype=torch.float64)
TIME = torch.linspace(0, 1, 4, dtype=torch.float64)
AXES: Any = {"number": -1, "word": "x", "fraction": (-1.0,), "twice": (-1, -1), "none": ()}


def ends(*values: Any) -> Callable[[], Any]:
    return lambda: DirichletLift((-1,))(FIELD, list(values))


def grows(function: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: InitialLift(function)(FIELD, FIELD, TIME)


WRONG: dict[str, tuple[Callable[[], Any], type[PhysimError], str]] = {
    "faces none": (lambda: DirichletLift((-1,))(FIELD, None), SettingsError, "values: got None"),
    "faces number": (lambda: DirichletLift((-1,))(FIELD, 0.0), SettingsError, "values: got float"),
    "face alone": (ends(0.0), SettingsError, r"values\[0\]: got 0.0, expected a pair"),
    "three faces": (ends((0.0, 1.0, 2.0)), SettingsError, r"values\[0\]: got"),
    "face shape": (ends((torch.ones(4), 0.0)), ShapeError, r"values\[0\]\[0\]: got shape \(4,\)"),
    "face complex": (ends((0.0, 1j)), SettingsError, r"values\[0\]\[1\]: got complex"),
    "face word": (ends((0.0, "a")), SettingsError, r"values\[0\]\[1\]: got 'a'"),
    "output": (lambda: InitialLift()(None, FIELD, TIME), SettingsError, "output: got NoneType"),
    "initial": (lambda: InitialLift()(FIELD, None, TIME), SettingsError, "initial: got None"),
    "initial complex": (lambda: InitialLift()(FIELD, 1j, TIME), SettingsError, "initial: got comp"),
    "start": (lambda: InitialLift()(FIELD, FIELD, "0"), SettingsError, "time: got '0'"),
    "initial shape": (
        lambda: InitialLift()(FIELD, torch.ones(5), TIME),
        ShapeError,
        r"output \(3, 4\), initial \(5,\), time \(4,\)",
    ),
    "pairs in time": (
        lambda: InitialLift()(FIELD[:, :1], FIELD[:, 0], 0.0),
        ShapeError,
        r"make \(3, 3\), expected that of output",
    ),
    "duration": (lambda: InitialLift(math.inf), SettingsError, "duration: got inf"),
    "growth": (grows(lambda t: 1), SettingsError, "duration: the function gave int"),
    "growth at zero": (grows(torch.cos), SettingsError, "duration: the function is 1 at time zero"),
    "growth shape": (grows(lambda t: t[:3]), ShapeError, r"duration\(time\) \(3,\)"),
    "periods": (lambda: PeriodicLift(1.0), SettingsError, "periods: got 1.0, expected a sequence"),
    "no periods": (lambda: PeriodicLift(()), SettingsError, "periods: got none"),
    "harmonics": (lambda: PeriodicLift((1.0,), harmonics=1.5), SettingsError, "harmonics: got 1.5"),
    "coordinates": (lambda: PeriodicLift((1.0,))([0.0]), SettingsError, "x: got list"),
    "spacing": (lambda: DivergenceFree(1.0), SettingsError, "spacing: got 1.0, expected a seq"),
    "spacing inf": (lambda: DivergenceFree((1.0, math.inf)), SettingsError, "spacing: got"),
    "no grid": (lambda: DivergenceFree((1, 1))(FLOW[:, :0]), ShapeError, r"got shape \(2, 0, 4\)"),
    "rtol": (lambda: AffineEquality(ROWS, rtol=2.0), SettingsError, "rtol: got 2.0"),
    "right side": (lambda: AffineEquality(ROWS)(FIELD, None), SettingsError, "b: got None"),
    "rows per call": (
        lambda: AffineEquality()(FIELD, torch.ones(1), torch.ones(4)),
        ShapeError,
        r"A: got shape \(4,\)",
    ),
    "device": (
        lambda: AffineEquality(ROWS).to("meta")(FIELD, torch.ones(2)),
        SettingsError,
        "A: got a tensor on meta, expected cpu as for x",
    ),
    "weights": (lambda: Integral(None), SettingsError, "weights: got None"),
    "weight of no axis": (lambda: Integral(torch.ones(())), SettingsError, "without axes"),
    "axes": (lambda: Integral(1.0, axes=1.5), SettingsError, "axes: got 1.5"),
    "total": (lambda: Integral(1.0)(FIELD, None), SettingsError, "total: got None"),
    "lower": (lambda: Box()(FIELD, None, 1.0), SettingsError, "lower: got None"),
    "upper": (lambda: Box()(FIELD, 0.0, 1j), SettingsError, "upper: got complex"),
    "smooth": (lambda: Box(smooth="yes"), SettingsError, "smooth: got 'yes'"),
    "far": (lambda: Box(smooth=True)(FIELD, -1e308, 1e308), SettingsError, "distance overflows"),
    "trained rows": (
        lambda: AffineEquality(ROWS.clone().requires_grad_()),
        SettingsError,
        "A: got a tensor that requires gradients",
    ),
    "trained weights": (
        lambda: Integral(torch.nn.Parameter(torch.ones(4))),
        SettingsError,
        "weights: got a tensor that requires gradients",
    ),
    "listed": (
        lambda: Integral(1.0)(FIELD, [torch.nn.Parameter(torch.ones(()))] * 3),
        SettingsError,
        "total: got a list of tensors that require gradients",
    ),
    "sum": (lambda: Simplex(math.inf), SettingsError, "total: got inf"),
    "sums": (lambda: Simplex(torch.ones(3)), SettingsError, "total: got a tensor"),
}


@pytest.mark.parametrize(("call", "error", "match"), WRONG.values(), ids=WRONG.keys())
def test_errors_name_the_argument(
    call: Callable[[], Any], error: type[PhysimError], match: str
) -> None:
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES.keys())
def test_axes_are_negative_whole_numbers(axes: Any) -> None:
    with pytest.raises(SettingsError, match="axes: got .*, expected different negative whole"):
        DirichletLift(axes)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (PeriodicLift((1.0,)), torch.ones(2, 1)),
        (DivergenceFree((1.0, 1.0)), FLOW),
        (lambda x: InitialLift()(x, FIELD, TIME), FIELD),
        (lambda x: DirichletLift((-1,))(x, [(0.0, 1.0)]), FIELD),
    ],
)
def test_only_real_tensors(layer: Callable[[Any], Any], x: torch.Tensor) -> None:
    for kind in (torch.int64, torch.complex128, torch.bool):
        with pytest.raises(SettingsError, match=f"got type {kind}, expected floating point"):
            layer(x.to(kind))


def test_numbers_count_where_a_tensor_of_them_would() -> None:
    keep = InitialLift()
    expected = keep(FIELD, torch.zeros_like(FIELD), torch.ones_like(FIELD))
    assert torch.equal(keep(FIELD, 0.0, 1.0), expected)
    assert torch.equal(keep(FIELD, 0, torch.ones(4, dtype=torch.int64)), expected)
    assert keep(FIELD.float(), 0.0, 1.0).dtype == torch.float32
    assert torch.equal(Integral([0.5, 0.5])(TIME[:2], 1), Integral(0.5)(TIME[:2], torch.ones(())))


def test_not_a_number_stays_in_its_item() -> None:
    bad = FIELD.clone()
    bad[1, 2] = math.nan
    others = torch.tensor([0, 2])
    for layer in (
        lambda x: DirichletLift((-1,))(x, [(0.0, 1.0)]),
        lambda x: InitialLift()(x, 1.0, TIME),
        PeriodicLift((1.0, 2.0, math.inf, 1.0), harmonics=2),
    ):
        assert torch.equal(layer(bad)[others], layer(FIELD)[others])
        assert layer(bad)[1].isnan().any()


def test_an_empty_batch_stays_empty() -> None:
    project = DivergenceFree((1.0, 1.0))
    assert project(FLOW[None][:0]).shape == (0, 2, 4, 4)
    assert project.divergence(FLOW[None][:0]).shape == (0, 4, 4)
    assert DirichletLift((-1,))(FIELD[:0], [(0.0, 1.0)]).shape == (0, 4)
    assert PeriodicLift((1.0,))(FIELD[:0, :1]).shape == (0, 2)
