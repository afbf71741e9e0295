"""Least squares: agreement with SciPy, invariances, exact gradients, and items that fail alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import (
    NonFiniteError,
    NotConvergedError,
    PerformanceWarning,
    SettingsError,
    ShapeError,
    Status,
)
from solvers.core.testing import check_gradients
from solvers.kernels import scalar
from solvers.nonlinear import (
    CompiledProblem,
    GeneralProblem,
    HybridProblem,
    LevenbergMarquardt,
    PointwiseProblem,
    choose_problem,
    cost_gradient,
    implicit_least_squares,
    is_traceable,
    newton_step,
)

BACKENDS = [PointwiseProblem, CompiledProblem, HybridProblem]


def reaction(u: Any, slope: Any, curve: Any, target: Any) -> Any:
    return slope - scalar.exp(-u) * curve + 0.3 * u * u - target


def value(u: Any) -> Any:
    return u - 1.0


def pair(u: Any, v: Any) -> Any:
    return u * v - 0.5, scalar.tanh(u) + 0.1 * v


RESIDUALS = {"equation": reaction, "value": value, "pair": pair}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def inputs(items: int, unknowns: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    sizes = {"equation": (13, 3), "value": (5, 1), "pair": (9, 2)}
    features = {
        name: draw(items, m, k, unknowns, seed=seed + place) / math.sqrt(unknowns)
        for place, (name, (m, k)) in enumerate(sizes.items())
    }
    return features, {"equation": [draw(items, 13, seed=seed + 7)]}


def stacked_rows(problem: PointwiseProblem, w: Tensor) -> Tensor:
    """All rows of a one-item problem with their weights, ridge included."""
    parts = [
        math.sqrt(scale) * rows.flatten()
        for scale, rows in zip(problem.scales, problem.rows(w).values(), strict=True)
    ]
    return torch.cat([*parts, math.sqrt(problem.ridge) * w.flatten()])


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("unknowns", [1, 3, 11])
def test_scipy_finds_the_same_minimum(kind: type[PointwiseProblem], unknowns: int) -> None:
    problem = kind(RESIDUALS, *inputs(1, unknowns), ridge=1e-2)
    mine = LevenbergMarquardt(tolerance=1e-11).solve(problem)
    assert mine.all_converged

    def rows(w: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return stacked_rows(problem, torch.from_numpy(w)[None]).numpy()

    start = np.zeros(unknowns)
    peer = scipy.optimize.least_squares(rows, start, xtol=1e-15, ftol=1e-15, gtol=1e-13)
    assert float(mine.report.counts["cost"]) == pytest.approx(peer.cost, rel=1e-9)
    assert np.abs(mine.value[0].numpy() - peer.x).max() < 1e-6


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("is_exact", [False, True])
def test_normal_equations_are_those_of_autograd(
    kind: type[PointwiseProblem], is_exact: bool
) -> None:
    features, data = inputs(1, 3)
    problem = kind(RESIDUALS, features, data, ridge=0.1)
    w = draw(1, 3, seed=3)
    at = problem.normal_equations(w, torch.arange(1), is_exact=is_exact)

    def cost(w: Tensor) -> Tensor:
        return 0.5 * stacked_rows(problem, w[None]).square().sum()

    assert float(at.cost) == pytest.approx(float(cost(w[0])), rel=1e-12)
    gradient = torch.func.grad(cost)(w[0])
    assert torch.allclose(at.gradient[0], gradient, rtol=1e-11, atol=1e-13)
    if is_exact:
        matrix = torch.func.hessian(cost)(w[0])
    else:
        J = torch.func.jacrev(lambda w: stacked_rows(problem, w[None]))(w[0])
        matrix = J.T @ J
    assert torch.allclose(at.matrix[0], matrix, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", BACKENDS[1:])
@given(items=st.integers(1, 4), unknowns=st.sampled_from([1, 3, 11]), seed=st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_native_forms_are_twins(
    kind: type[PointwiseProblem], items: int, unknowns: int, seed: int
) -> None:
    features, data = inputs(items, unknowns, seed)
    data = {name: [one.requires_grad_() for one in some] for name, some in data.items()}
    w, v = draw(items, unknowns, seed=seed + 1), draw(items, unknowns, seed=seed + 2)
    chosen = torch.arange(items)[seed % items :]
    reference, kernel = (
        form(RESIDUALS, features, data, weights={"pair": 3.0}, ridge=0.1)
        for form in (PointwiseProblem, kind)
    )
    for is_exact in (False, True):
        for mine, theirs in zip(
            kernel.normal_equations(w[chosen], chosen, is_exact=is_exact),
            reference.normal_equations(w[chosen], chosen, is_exact=is_exact),
            strict=True,
        ):
            assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-13)
    pulled = zip(
        kernel.pull_back(w[chosen], v[chosen], chosen),
        reference.pull_back(w[chosen], v[chosen], chosen),
        strict=True,
    )
    for one, two in pulled:
        assert one is not None
        assert two is not None
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-13)
    ends = [LevenbergMarquardt().solve(problem) for problem in (kernel, reference)]
    assert torch.equal(ends[0].status, ends[1].status)
    assert torch.allclose(ends[0].value, ends[1].value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", BACKENDS)
def test_gradients_are_those_of_differences(kind: type[PointwiseProblem]) -> None:
    features, data = inputs(2, 3)

    def solve(equation: Tensor, value: Tensor, pair: Tensor, target: Tensor) -> Tensor:
        problem = kind(
            RESIDUALS,
            {"equation": equation, "value": value, "pair": pair},
            {"equation": [target]},
            ridge=1e-2,
        )
        return implicit_least_squares(problem, solver=LevenbergMarquardt(tolerance=1e-9)).value

    error = check_gradients(
        solve, [*features.values(), data["equation"][0]], rtol=1e-6, eps=1e-5, directions=6
    )
    assert error < 1e-6


def test_the_part_that_gauss_and_newton_leave_out_matters() -> None:
    features, data = inputs(1, 3)
    for phi in features.values():
        phi.requires_grad_()
    problem = PointwiseProblem(RESIDUALS, features, data, ridge=1e-2)
    w = LevenbergMarquardt(tolerance=1e-12).solve(problem).value
    gradient, exact = cost_gradient(problem, w)
    rough = problem.normal_equations(w, torch.arange(1)).matrix
    one, two = (
        torch.autograd.grad(
            newton_step(w, gradient, H)[0].sum(), features["pair"], retain_graph=True
        )[0]
        for H in (exact, rough)
    )
    assert float((one - two).norm() / one.norm()) > 0.01


def test_general_residuals_agree_with_pointwise_ones() -> None:
    features, data = inputs(2, 3)
    target = data["equation"][0]

    def rows(w: Tensor, phi: Tensor, target: Tensor) -> Tensor:
        z = phi @ w
        return reaction(*z.unbind(-1), target) / math.sqrt(13)

    phi = features["equation"]
    general = GeneralProblem(rows, [phi, target], unknowns=3, ridge=1e-2)
    pointwise = PointwiseProblem({"rows": reaction}, {"rows": phi}, {"rows": [target]}, ridge=1e-2)
    solver = LevenbergMarquardt(tolerance=1e-11)
    one, two = (solver.solve(problem) for problem in (general, pointwise))
    assert torch.allclose(one.value, two.value, atol=1e-9)
    error = check_gradients(
        lambda phi, target: (
            implicit_least_squares(
                GeneralProblem(rows, [phi, target], unknowns=3, ridge=1e-2), solver=solver
            ).value
        ),
        [phi, target],
        rtol=1e-6,
        eps=1e-5,
        directions=3,
    )
    assert error < 1e-6


@pytest.mark.parametrize("kind", BACKENDS)
@given(factor=st.floats(1e-6, 1e6), seed=st.integers(0, 5))
@settings(max_examples=5, deadline=None)
def test_neither_units_nor_the_basis_change_the_iteration(
    kind: type[PointwiseProblem], factor: float, seed: int
) -> None:
    features, data = inputs(2, 3, seed)
    mix = torch.linalg.qr(draw(3, 3, seed=seed))[0] @ torch.diag(
        torch.tensor([1.0, 0.3, 5.0], dtype=torch.float64)
    )
    plain = kind(RESIDUALS, features, data)
    scaled = kind(RESIDUALS, features, data, weights=dict.fromkeys(RESIDUALS, factor))
    mixed = kind(RESIDUALS, {name: phi @ mix for name, phi in features.items()}, data)
    first, second, third = (LevenbergMarquardt().solve(p) for p in (plain, scaled, mixed))
    assert torch.equal(first.iterations, second.iterations)
    assert torch.allclose(first.value, second.value, rtol=1e-7, atol=1e-7)
    if first.all_converged and third.all_converged:
        minimum = torch.minimum(*(s.report.counts["cost"] for s in (first, third)))
        near = (first.report.counts["cost"] - third.report.counts["cost"]).abs() < 1e-6 * minimum
        back = third.value @ mix.T
        assert torch.allclose(first.value[near], back[near], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_residual_that_falls_to_zero_ends_the_iteration(kind: type[PointwiseProblem]) -> None:
    phi = draw(3, 20, 1, 4, seed=1)
    true = draw(3, 4, seed=2)
    target = torch.einsum("emkn,en->em", phi, true).exp()
    problem = kind({"fit": lambda u, y: scalar.exp(u) - y}, {"fit": phi}, {"fit": [target]})
    solution = LevenbergMarquardt(tolerance=1e-9).solve(problem)
    assert solution.all_converged
    assert torch.allclose(solution.value, true, atol=1e-7)
    again = LevenbergMarquardt(tolerance=1e-9).solve(problem, solution.value)
    assert again.iterations.max() <= 1


@pytest.mark.parametrize("kind", BACKENDS)
def test_zero_minimum_at_zero(kind: type[PointwiseProblem]) -> None:
    problem = kind({"rows": lambda u: u}, {"rows": draw(2, 6, 1, 3, seed=0)})
    solution = LevenbergMarquardt().solve(problem)
    assert solution.all_converged
    assert solution.iterations.tolist() == [0, 0]


@pytest.mark.parametrize("kind", BACKENDS)
def test_one_bad_item_fails_alone(kind: type[PointwiseProblem]) -> None:
    features, data = inputs(4, 3)
    alone = {name: phi[:3].clone() for name, phi in features.items()}
    features["value"][3, 2] = math.nan
    for phi in features.values():
        phi.requires_grad_()
    problem = kind(RESIDUALS, features, data, ridge=1e-2)
    with pytest.raises(NotConvergedError, match="1 of 4 items"):
        implicit_least_squares(problem)
    solution = implicit_least_squares(problem, on_failure="mask")
    assert solution.status.tolist() == [0, 0, 0, Status.NON_FINITE]
    rest = kind(RESIDUALS, alone, {"equation": [data["equation"][0][:3]]}, ridge=1e-2)
    good = implicit_least_squares(rest).value
    assert torch.allclose(solution.value[:3], good, rtol=1e-12, atol=1e-13)
    solution.value.sum().backward()
    for phi in features.values():
        assert phi.grad is not None
        assert phi.grad.isfinite().all()
        assert not phi.grad[3].any()
        assert phi.grad[:3].any()


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_limit_is_reported_with_the_best_iterate(kind: type[PointwiseProblem]) -> None:
    problem = kind(RESIDUALS, *inputs(2, 11), ridge=1e-2)
    short = LevenbergMarquardt(max_iterations=2).solve(problem)
    assert short.status.tolist() == [Status.MAX_ITERATIONS] * 2
    assert short.iterations.tolist() == [2, 2]
    start = problem.normal_equations(torch.zeros_like(short.value), torch.arange(2)).cost
    assert (short.report.counts["cost"] < start).all()


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_saddle_is_no_minimum(kind: type[PointwiseProblem]) -> None:
    phi = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    problem = kind({"rows": lambda u: u * u - 1.0}, {"rows": phi})
    solution = implicit_least_squares(problem, on_failure="mask")
    assert solution.status.tolist() == [Status.BREAKDOWN]


@pytest.mark.parametrize("kind", BACKENDS)
def test_dependent_features_converge(kind: type[PointwiseProblem]) -> None:
    phi = draw(1, 30, 1, 3, seed=4)
    twice = torch.cat([phi, phi], -1)
    problem = kind({"fit": lambda u, y: u - y}, {"fit": twice}, {"fit": [draw(30, seed=5)]})
    plain = kind({"fit": lambda u, y: u - y}, {"fit": phi}, {"fit": [draw(30, seed=5)]})
    one, two = (LevenbergMarquardt().solve(p) for p in (problem, plain))
    assert one.all_converged
    assert float(one.report.counts["cost"]) == pytest.approx(float(two.report.counts["cost"]))


def test_threads_change_no_bit() -> None:
    problem = CompiledProblem(RESIDUALS, *inputs(5, 11), ridge=1e-2)
    before = torch.get_num_threads()
    values = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        values.append(LevenbergMarquardt().solve(problem).value)
    torch.set_num_threads(before)
    assert torch.equal(*values)


@pytest.mark.parametrize(
    ("kind", "module"), [(PointwiseProblem, "pointwise"), (HybridProblem, "hybrid")]
)
def test_points_are_taken_in_chunks(
    kind: type[PointwiseProblem], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, data = inputs(2, 3)
    data = {name: [one.requires_grad_() for one in some] for name, some in data.items()}
    whole = kind(RESIDUALS, features, data)
    w = draw(2, 3, seed=1)
    items = torch.arange(2)
    expected = [*whole.normal_equations(w, items), *whole.pull_back(w, w, items)]
    monkeypatch.setattr(f"solvers.nonlinear._least_squares_{module}._CHUNK", 40)
    for mine, theirs in zip(
        [*whole.normal_equations(w, items), *whole.pull_back(w, w, items)], expected, strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)


def test_a_residual_that_changes_is_traced_again() -> None:
    holder = {"goal": 1.0}
    phi = {"a": torch.ones(1, 1, 1, 1).double()}

    def moving(u: Any) -> Any:
        return u - holder["goal"]

    for goal in (1.0, 2.0):
        holder["goal"] = goal
        w = LevenbergMarquardt().solve(CompiledProblem({"a": moving}, phi)).value
        assert w.item() == pytest.approx(goal)


def test_a_residual_that_keeps_changing_is_said() -> None:
    held = [lambda u, goal=goal: u - goal / 7.3 for goal in range(1, 9)]
    with pytest.warns(PerformanceWarning, match="give what changes as data"):
        assert all([is_traceable({"a": residual}, {"a": (1, 0)}) for residual in held])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            assert is_traceable({"a": lambda u, k: u - k}, {"a": (1, 1)})


def test_functions_of_torch_are_traced() -> None:
    def residual(u: Any, v: Any) -> Any:
        return torch.where(v > 0.1, v, 0.0) * torch.exp(-u) + u.square().sqrt() - (v**2 + 1) ** 0.3

    phi = {"b": inputs(2, 3)[0]["pair"]}
    assert choose_problem({"b": residual}, {"b": (2, 0)}, phi.values()) is CompiledProblem
    w, items = draw(2, 3, seed=1), torch.arange(2)
    kinds = (PointwiseProblem, CompiledProblem, HybridProblem)
    twin, *mine = (kind({"b": residual}, phi) for kind in kinds)
    for problem in mine:
        for is_exact in (False, True):
            for a, b in zip(
                problem.normal_equations(w, items, is_exact=is_exact),
                twin.normal_equations(w, items, is_exact=is_exact),
                strict=True,
            ):
                assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)
        # Right after the exact equations their values are at hand.
        (pulled,), (expected,) = (some.pull_back(w, w.flip(1), items) for some in (problem, twin))
        assert torch.allclose(pulled, expected, rtol=1e-12, atol=1e-14)


def test_what_can_be_traced() -> None:
    assert is_traceable({"a": value}, {"a": (1, 0)})
    assert is_traceable({"a": torch.sin}, {"a": (1, 0)})
    assert not is_traceable({"a": torch.sinh}, {"a": (1, 0)})
    assert not is_traceable({"a": lambda u: u * torch.tensor(2.0)}, {"a": (1, 0)})
    assert not is_traceable({"a": lambda u: u if u > 0 else 0.0}, {"a": (1, 0)})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": {"a": torch.ones(2, 3, 1)}}, ShapeError, "expected .E, m, k, N."),
        ({"features": {"b": torch.ones(2, 3, 1, 4)}}, SettingsError, "families .'b'."),
        ({"features": {"a": torch.ones(2, 3, 1, 4)}}, SettingsError, "float64"),
        ({"data": {"a": [torch.ones(7).double()]}}, ShapeError, "broadcasts to .2, 3."),
        ({"data": {"c": []}}, SettingsError, "families .'c'."),
        ({"weights": {"a": -1.0}}, SettingsError, "weights.'a'."),
        ({"ridge": -1.0}, SettingsError, "ridge"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {
        "residuals": {"a": value},
        "features": {"a": torch.ones(2, 3, 1, 4).double()},
        "data": {},
    }
    given.update(change)
    with pytest.raises(error, match=message):
        PointwiseProblem(
            given["residuals"],
            given["features"],
            given["data"],
            weights=given.get("weights"),
            ridge=given.get("ridge", 0.0),
        )


def test_bad_start_and_bad_residual() -> None:
    phi = {"a": torch.ones(2, 3, 1, 4).double()}
    problem = PointwiseProblem({"a": value}, phi)
    with pytest.raises(ShapeError, match="start"):
        LevenbergMarquardt().solve(problem, torch.zeros(2, 3).double())
    with pytest.raises(NonFiniteError, match="start"):
        LevenbergMarquardt().solve(problem, torch.full((2, 4), math.nan).double())
    bad: Callable[..., Any] = lambda u, v: u - v  # noqa: E731
    with pytest.raises(SettingsError, match="1 features and 0 data"):
        LevenbergMarquardt().solve(PointwiseProblem({"a": bad}, phi))
    with pytest.raises(SettingsError, match="cannot be traced"):
        CompiledProblem({"a": bad}, phi)


@pytest.mark.parametrize("kind", BACKENDS)
def test_no_items_and_no_points(kind: type[PointwiseProblem]) -> None:
    empty = kind({"a": value}, {"a": torch.ones(0, 3, 1, 4).double()})
    assert implicit_least_squares(empty).value.shape == (0, 4)
    features = {"a": torch.ones(2, 0, 1, 1).double(), "b": torch.ones(2, 3, 1, 1).double()}
    half = kind({"a": value, "b": value}, features)
    assert implicit_least_squares(half).value.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_gradient_takes_over_the_last_evaluation(
    kind: type[PointwiseProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, data = inputs(3, 5)
    features = {name: one.requires_grad_() for name, one in features.items()}
    asked: list[bool] = []
    evaluate = kind.normal_equations

    def counted(self: PointwiseProblem, w: Tensor, items: Tensor, *, is_exact: bool = False) -> Any:
        asked.append(is_exact)
        return evaluate(self, w, items, is_exact=is_exact)

    monkeypatch.setattr(kind, "normal_equations", counted)
    problem = kind(RESIDUALS, features, data, ridge=1e-3)
    solver = LevenbergMarquardt(tolerance=1e-10)
    plain = solver.solve(problem).value
    alone = len(asked)
    solution = implicit_least_squares(problem, solver=solver)
    assert len(asked) == 2 * alone
    fresh, hessian = cost_gradient(problem, plain)
    expected, _ = newton_step(plain, fresh, hessian)
    torch.testing.assert_close(solution.value, expected, atol=1e-14, rtol=1e-14)
    found = torch.autograd.grad(solution.value.square().sum(), list(features.values()))
    wanted = torch.autograd.grad(expected.square().sum(), list(features.values()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
