"""The picture of a result shows its field, its error and its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import solvers.pinn._figure as figures
from solvers.core import SettingsError
from solvers.pde import Ball, Box, Dirichlet, Initial, Periodic, Problem
from solvers.pde.functions import pi, sin
from solvers.pinn import MLP, PINN, LagrangianPINN

pytest.importorskip("matplotlib")

CONVECTION = Problem(
    name="convection",
    domain=Box(x=(0, 2 * pi), t=(0, 1)),
    residual=lambda u, x, t: u.t + u.x,
    conditions=[Initial(u=sin), Periodic("x")],
    reference=lambda x, t: sin(x - t),
)
ROD = Problem(
    name="rod",
    domain=Box(x=(0, 1)),
    residual=lambda u, x: u.xx + 1.0,
    conditions=[Dirichlet(axis="x", side="both", u=0.0)],
)

RING = Problem(
    name="ring",
    domain=(Box(x=(-1, 1), y=(-1, 1)) - Ball(0.5, x=0, y=0)) * Box(t=(0, 2)),
    fields=("u", "w"),
    residual=lambda u, w: (u.t - u.xx - u.yy, w.xx + w.yy - u),
    conditions=[Initial(u=0.0), Dirichlet(u=0.0, w=lambda x, y: x * y)],
)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Axes of every figure that is opened."""
    opened: list[Any] = []

    def open_figure(**options: Any) -> Any:
        figure, axes = figures_open(**options)
        opened.append(axes)
        return figure, axes

    figures_open = figures.open_figure
    monkeypatch.setattr(figures, "open_figure", open_figure)
    return opened


@pytest.mark.parametrize("frame", [PINN, LagrangianPINN])
def test_field_error_and_history_are_drawn(frame: Any, tmp_path: Path, sheets: list[Any]) -> None:
    result = frame(CONVECTION, MLP(width=6, depth=1), points=60).fit(10, steps=60, measure=True)
    path = result.plot(tmp_path / "run.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    ((field, error, history),) = sheets
    assert [field.get_title(), error.get_title()] == ["u", "error of u"]
    assert [field.get_xlabel(), field.get_ylabel()] == ["x", "t"]
    exact = torch.sin(torch.linspace(0, 2 * pi, 161, dtype=torch.float64))
    drawn, wrong = (torch.as_tensor(a.collections[0].get_array().copy()) for a in (field, error))
    start = drawn.reshape(161, 121)[:, 0]
    assert (start - exact).abs().max() < 1e-2
    assert float(wrong.max()) < 0.2 < float(drawn.max())
    names = [line.get_label() for line in history.lines]
    assert names == ["loss", "held out", "relative l2"]
    assert list(history.lines[1].get_ydata()) == pytest.approx(
        [row["held_out"] for row in result.history]
    )


def test_one_axis_is_a_curve_and_without_reference_has_no_error(
    tmp_path: Path, sheets: list[Any]
) -> None:
    result = PINN(ROD, MLP(width=4, depth=1), points=40, backend="sweep").fit(10, steps=5)
    assert result.plot(tmp_path / "rod.svg").exists()
    ((curve, empty, history),) = sheets
    x, u = (torch.as_tensor(values) for values in curve.lines[0].get_data())
    assert torch.equal(u, result(x).detach())
    assert not empty.has_data()
    assert [line.get_label() for line in history.lines] == ["loss", "held out"]
    with pytest.raises(SettingsError, match="ends in"):
        result.plot(tmp_path / "rod.txt")


def test_every_field_is_drawn_where_the_domain_is(tmp_path: Path, sheets: list[Any]) -> None:
    result = PINN(RING, MLP(width=4, depth=1), points=40, backend="sweep").fit(10, steps=3)
    result.plot(tmp_path / "ring.png")
    ((u, *_, w, _, _),) = sheets
    assert [u.get_title(), w.get_title()] == ["u at t = 2", "w at t = 2"]
    x = torch.linspace(-1, 1, 161, dtype=torch.float64)[:, None]
    y = torch.linspace(-1, 1, 121, dtype=torch.float64)
    for axes, name in ((u, "u"), (w, "w")):
        drawn = torch.as_tensor(axes.collections[0].get_array().filled(torch.nan)).reshape(161, 121)
        assert torch.equal(drawn.isnan(), torch.hypot(x, y) < 0.5 - 1e-9)
        expected = result(x, y, 2.0)[name].detach()
        torch.testing.assert_close(drawn[:40], expected[:40])
