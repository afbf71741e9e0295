"""A field that is asked for where it was not trained says so."""

from __future__ import annotations

import signal
import warnings

import pytest
import torch

from solvers.core import NumericalWarning, SettingsError
from solvers.pde import Box, Dirichlet, Initial, Periodic, Polygon, Problem, problems
from solvers.pinn import MLP, PINN, LagrangianPINN, TimeMarching
from solvers.pinn._result import PINNResult

NET = MLP(width=4, depth=1)
BOUNDARY = torch.linspace(0.0, 1.0, 11) ** 2 * 0.3


def trained(problem: Problem) -> PINNResult:
    return PINN(problem, NET, points=40).fit(20, steps=1)


def heat() -> Problem:
    return Problem(
        "heat",
        domain=Box(x=(0, 0.3), t=(0, 1)),
        residual=lambda u: u.t - u.xx,
        conditions=[Initial(u=0.0), Dirichlet(axis="x", u=0.0)],
    )


def test_a_field_warns_of_points_off_its_domain_and_of_no_others() -> None:
    result = trained(heat())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result(BOUNDARY[:, None], torch.tensor([0.0, 1.0]))
        result.network(torch.full((1, 2), 9.0, dtype=torch.float64))
    with pytest.warns(NumericalWarning, match=r"heat: 2 of 6 points .* as x=0\.1, t=2; .*Box"):
        values = result(torch.tensor([0.1, 0.2]), torch.tensor([[0.0], [1.0], [2.0]]))
    assert isinstance(values, torch.Tensor)
    assert values.shape == (3, 2)
    with pytest.warns(NumericalWarning) as caught:
        result(x=-1.0, t=0.5)
    assert caught[0].filename == __file__


def test_along_a_period_every_place_is_inside() -> None:
    plane = Problem(
        "plane",
        domain=Box(x=(0, 1), y=(0, 1)),
        residual=lambda u, x, y: u.xx + u.yy - u + 1,
        conditions=[Periodic("x"), Dirichlet(axis="y", u=0.0)],
    )
    result = trained(plane)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(result(1.25, 0.5), result(0.25, 0.5), rtol=0, atol=1e-12)
    with pytest.warns(NumericalWarning, match="1 of 1"):
        result(0.5, 1.25)


def test_a_notch_of_a_polygon_is_outside_and_its_edge_is_not() -> None:
    corner = Polygon([(0, 0), (1, 0), (1, 0.3), (0.3, 0.3), (0.3, 1), (0, 1)])
    plane = Problem(
        "corner",
        domain=corner,
        residual=lambda u: u.xx + u.yy,
        conditions=[Dirichlet(u=0.0)],
    )
    result = trained(plane)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # 0.3 of float32 is a little more than 0.3.
        result(torch.linspace(0.3, 1.0, 5), torch.tensor(0.3))
    with pytest.warns(NumericalWarning, match="1 of 2 points .* x=0.6, y=0.6"):
        result(torch.tensor([0.1, 0.6]), torch.tensor([0.1, 0.6]))


def test_labels_warn_of_times_and_a_march_of_windows_that_were_not_trained() -> None:
    problem = problems.Convection(beta=1.0)
    labels = LagrangianPINN(problem, points=40).fit(20, steps=1)
    with pytest.warns(NumericalWarning, match="1 of 1 points .* t=3"):
        labels.evaluate(0.5, 3.0, on_failure="mask")
    march = TimeMarching(problem, NET, windows=2, points=40)

    def stop(row: object) -> None:
        signal.raise_signal(signal.SIGINT)

    result = march.fit(20, callback=stop, on_failure="mask")
    assert march.is_interrupted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result(0.5, 0.5)
    with pytest.warns(NumericalWarning, match="1 of 1 points .* t=0.75"):
        result(0.5, 0.75)


@pytest.mark.parametrize(
    ("given", "named", "words"),
    [
        ((0.1,), {}, "coordinates: got 1, expected one for each of x, t"),
        ((0.1,), {"y": 1.0}, "got 1 and y by name, expected"),
        ((), {"x": 1.0}, "got x by name, expected"),
    ],
)
def test_the_count_of_coordinates_is_said_plainly(
    given: tuple[float, ...], named: dict[str, float], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        trained(heat())(*given, **named)
