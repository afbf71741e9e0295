"""The picture of a result shows its field, its error and its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import solvers.pinn._figure as figures
from solvers.core import SettingsError
from solvers.pde import Box, Dirichlet, Initial, Periodic, Problem
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


def test_one_axis_without_reference_has_its_history(tmp_path: Path, sheets: list[Any]) -> None:
    result = PINN(ROD, MLP(width=4, depth=1), points=40).fit(10, steps=5)
    assert result.plot(tmp_path / "rod.svg").exists()
    ((history,),) = sheets
    assert [line.get_label() for line in history.lines] == ["loss", "held out"]
    with pytest.raises(SettingsError, match="ends in"):
        result.plot(tmp_path / "rod.txt")
