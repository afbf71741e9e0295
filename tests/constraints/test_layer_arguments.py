"""Arguments of layers that solve: what is wrong is named, what is copied works as before."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import cvxpy
import pytest
import torch
from torch import Tensor

from constraints import (
    ConeProgram,
    ConvexLayer,
    GeneralLeastSquares,
    ImplicitLeastSquares,
    PhysimError,
    QuadraticProgram,
    SettingsError,
    ShapeError,
)

ONE = torch.ones(2, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
FEATURES = torch.eye(3, dtype=torch.float64)[None, :, None]


def offset(u: Any, goal: Any) -> Any:
    return u - goal


def general(w: Tensor, goal: Tensor) -> Tensor:
    return w - goal


def fit(data: Any = None, *, features: Any = FEATURES, **settings: Any) -> Any:
    data = [torch.ones(1, 3, dtype=torch.float64)] if data is None else data
    return ImplicitLeastSquares(offset, **settings)(features, data)


def nearest(**settings: Any) -> ConvexLayer:
    x, point = cvxpy.Variable(2, name="x"), cvxpy.Parameter(2, name="point")
    ball = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - point)), [cvxpy.norm(x) <= 0.1])
    return ConvexLayer(ball, [point], [x], **settings)


WRONG: dict[str, tuple[Callable[[], Any], type[PhysimError], str]] = {
    "steps": (lambda: QuadraticProgram(max_iterations=2.5), SettingsError, "max_iterations: got 2"),
    "threads": (lambda: QuadraticProgram(threads=1.5), SettingsError, "threads: got 1.5"),
    "cone": (lambda: ConeProgram(second_order=3), SettingsError, "second_order: got 3"),
    "half a cone": (lambda: ConeProgram(second_order=(2.5,)), SettingsError, "second_order: got 2"),
    "no residual": (lambda: ImplicitLeastSquares(None), SettingsError, "residuals: got None"),
    "residual": (lambda: ImplicitLeastSquares({"e": 3}), SettingsError, r"residuals\['e'\]: got 3"),
    "weights": (lambda: ImplicitLeastSquares(offset, weights=2), SettingsError, "weights: got 2"),
    "ridge": (lambda: fit(ridge="a"), SettingsError, "ridge: got 'a'"),
    "features": (lambda: fit(features=1), SettingsError, "features: got int"),
    "whole": (lambda: fit(features=FEATURES.long()), SettingsError, "features: got type torch.int"),
    "complex data": (lambda: fit([ONE[:1] + 0j]), SettingsError, r"data\[0\]: got type"),
    "number": (lambda: fit([1.0]), SettingsError, r"data\[0\]: got float, expected a tensor"),
    "general": (lambda: GeneralLeastSquares(None, 1), SettingsError, "residual: got None"),
    "unknowns": (lambda: GeneralLeastSquares(general, 1.5), SettingsError, "unknowns: got 1.5"),
    "list": (lambda: GeneralLeastSquares(general, 1)([1]), SettingsError, r"parameters\[0\]: got"),
    "scalar": (lambda: GeneralLeastSquares(general, 1)(ONE[0]), ShapeError, "parameters: got shap"),
    "problem": (lambda: ConvexLayer(None, [], []), SettingsError, "problem: got NoneType"),
    "whole point": (lambda: nearest()(ONE.long()), SettingsError, "point: got type torch.int64"),
    "complex point": (lambda: nearest()(ONE + 0j), SettingsError, "point: got type torch.complex"),
}


@pytest.mark.parametrize(("wrong", "error", "match"), WRONG.values(), ids=WRONG.keys())
def test_errors_name_the_argument(
    wrong: Callable[[], Any], error: type[PhysimError], match: str
) -> None:
    with pytest.raises(error, match=match):
        wrong()


def test_transforms_of_solves_are_refused_by_name() -> None:
    ball = nearest()
    solved: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda q: QuadraticProgram()(Q=EYE, q=q)[0],
        lambda p: ball(p)[0][0],
        lambda g: fit([g[..., :1]])[0],
        lambda g: GeneralLeastSquares(general, 1)(g[..., :1])[0],
    )
    for solve in solved:
        check_refused(solve)


def check_refused(solve: Callable[[Tensor], Tensor]) -> None:
    for transformed in (
        torch.func.vmap(solve),
        torch.func.grad(lambda t: solve(t).sum()),
        torch.func.jacrev(solve),
        lambda t: torch.func.jvp(solve, (t,), (t,)),
    ):
        with pytest.raises(SettingsError, match="inside of a torch.func transform"):
            transformed(torch.ones(1, 2, dtype=torch.float64))


def test_whole_numbers_may_be_data() -> None:
    found, _ = fit([torch.tensor([[1, 2, 3]])])
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, 3.0]]).double())


def test_no_items_are_no_error() -> None:
    goal = torch.zeros(0, 1, dtype=torch.float64, requires_grad=True)
    found, report = GeneralLeastSquares(general, 1)(goal)
    assert found.shape == (0, 1)
    assert report.all_converged
    found.sum().backward()
    assert goal.grad.shape == (0, 1)


@pytest.mark.parametrize("backend", ["interior_point", "diffcp"])
def test_copies_of_a_convex_layer_solve_the_same(backend: Any) -> None:
    layer = nearest(backend=backend, on_failure="mask")
    layer.on_failure = "warn"
    (expected,), _ = layer(ONE)
    for twin in (copy.deepcopy(layer.eval()), pickle.loads(pickle.dumps(layer))):
        (found,), report = twin(ONE)
        assert torch.equal(found, expected)
        assert report.all_converged
        assert (twin.backend, twin.on_failure) == (backend, "warn")


def test_numbers_of_a_program_stay_double_in_a_model_of_another_type() -> None:
    model = torch.nn.ModuleList([nearest(), torch.nn.Linear(2, 2)])
    (expected,), _ = model[0](ONE)
    for moved in (model.float(), model.half()):
        (found,), _ = moved[0](ONE)
        assert torch.equal(found, expected)
    assert abs(float(expected.norm()) - 0.1) < 1e-12
