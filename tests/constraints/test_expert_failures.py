"""Mixtures with samples that are not finite, and with arguments of the wrong kind."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from constraints import (
    MixtureOfExperts,
    NotConvergedError,
    PhysimError,
    SettingsError,
    ShapeError,
    Status,
)
from constraints.experts import JetBasis, Partition, Rows

X = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
POINTS = {"equation": X, "start": X[:1]}
HEIGHT = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
KINDS = {"apart": None, "held": {"x": ("u",)}}
kinds = pytest.mark.parametrize("continuity", KINDS.values(), ids=KINDS.keys())


def decay(u: Any, slope: Any) -> Any:
    return slope + u


def match(u: Any, goal: Any) -> Any:
    return u - goal


def make(continuity: Any, basis: torch.nn.Module | None = None, **settings: Any) -> Any:
    rows = {
        "equation": Rows(residual=decay, features=("u", "u_x")),
        "start": Rows(residual=match, features=("u",), is_local=False),
    }
    basis = JetBasis("x", functions=5, width=8, conditions=1) if basis is None else basis
    return MixtureOfExperts(
        basis, rows, Partition.boxes([0.0], [1.0], [2]), continuity=continuity, **settings
    )


def spoiled(name: str) -> dict[str, Tensor]:
    given = {"height": HEIGHT.clone(), "condition": HEIGHT.clone(), "start": torch.zeros(3, 2, 5)}
    given[name].flatten(1)[1, 0] = math.nan
    return given


def call(mixture: Any, height: Tensor, condition: Tensor, start: Tensor | None = None) -> Any:
    return mixture(POINTS, {"start": [height]}, condition=condition, start=start)


@kinds
@pytest.mark.parametrize("name", ["height", "condition", "start"])
def test_a_sample_that_is_not_finite_fails_alone(continuity: Any, name: str) -> None:
    fine = make(continuity)
    condition = HEIGHT.clone().requires_grad_()
    expected = call(fine, HEIGHT, condition)
    expected(X)[[0, 2]].square().sum().backward()

    given = spoiled(name)
    mixture = make(continuity, on_failure="mask")
    again = given["condition"].requires_grad_()
    field = call(mixture, **{**given, "condition": again})
    failed = field.report.status.reshape(3, -1)
    assert (failed == torch.tensor([[0], [Status.NON_FINITE], [0]])).all()
    u = field(X)
    assert (u[1] == 0).all()
    torch.testing.assert_close(u[[0, 2]], expected(X)[[0, 2]], atol=1e-10, rtol=0)
    u.square().sum().backward()
    torch.testing.assert_close(again.grad[[0, 2]], condition.grad[[0, 2]], atol=1e-7, rtol=1e-6)
    assert (again.grad[1] == 0).all()
    for one, other in zip(mixture.basis.parameters(), fine.basis.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-7, rtol=1e-6)


@kinds
@pytest.mark.parametrize("name", ["height", "condition", "start"])
def test_the_error_names_the_argument(continuity: Any, name: str) -> None:
    argument = {"height": r"data\['start'\]\[0\]"}.get(name, name)
    with pytest.raises(NotConvergedError, match=rf"whose {argument} at index \(1, 0.* is nan") as e:
        call(make(continuity), **spoiled(name))
    assert e.value.solution.value(X).isfinite().all()


def test_data_that_one_expert_sees_fail_that_expert_alone() -> None:
    goal = torch.exp(-X[:, 0]).expand(2, -1).clone()
    goal[1, 25] = math.nan
    rows = {"all": Rows(residual=match, features=("u",))}
    basis = JetBasis("x", functions=5, width=8, conditions=1)
    mixture = MixtureOfExperts(basis, rows, Partition.boxes([0.0], [1.0], [2]), on_failure="mask")
    field = mixture({"all": X}, {"all": [goal]}, condition=HEIGHT[:2])
    assert field.report.status.tolist() == [[0, 0], [0, Status.NON_FINITE]]
    assert field(X).isfinite().all()


@kinds
def test_no_samples_and_only_lost_ones(continuity: Any) -> None:
    field = call(make(continuity), HEIGHT[:0], HEIGHT[:0])
    assert field.report.all_converged
    assert field(X).shape == (0, 30, 1)
    lost = torch.full_like(HEIGHT, math.nan)
    field = call(make(continuity, on_failure="mask"), HEIGHT, lost)
    assert (field.report.status == Status.NON_FINITE).all()
    assert (field(X) == 0).all()


@kinds
def test_what_is_trained_and_saved_is_the_basis_once(continuity: Any) -> None:
    mixture = make(continuity)
    names = [f"basis.{name}" for name, _ in mixture.basis.named_parameters()]
    assert [name for name, _ in mixture.named_parameters()] == names
    assert list(mixture.state_dict()) == names
    expected = call(mixture, HEIGHT, HEIGHT).coefficients
    for again in (copy.deepcopy(mixture), pickle.loads(pickle.dumps(mixture))):
        assert torch.equal(call(again, HEIGHT, HEIGHT).coefficients, expected)
    other = make(continuity, JetBasis("x", functions=5, width=8, conditions=1, seed=7))
    other.load_state_dict(mixture.state_dict())
    assert torch.equal(call(other, HEIGHT, HEIGHT).coefficients, expected)


class Stretched(torch.nn.Module):
    """A basis with a buffer, which is as much its own as its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = JetBasis("x", functions=5, width=8, conditions=1)
        self.coordinates, self.functions = "x", 5
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, points: Tensor, condition: Tensor, features: Any) -> Tensor:
        out: Tensor = self.scale * self.inner(points, condition, features)
        return out


@kinds
def test_buffers_of_the_basis_are_those_of_the_call(continuity: Any) -> None:
    mixture = make(continuity, Stretched())
    call(mixture, HEIGHT, HEIGHT)
    stretched = Stretched()
    for basis in (mixture.basis, stretched):
        basis.scale.fill_(2.0)
    expected = call(make(continuity, stretched), HEIGHT, HEIGHT).coefficients
    assert torch.equal(call(mixture, HEIGHT, HEIGHT).coefficients, expected)


@kinds
def test_a_basis_in_single_precision(continuity: Any) -> None:
    mixture = make(continuity)
    expected = call(mixture, HEIGHT, HEIGHT)(X)
    single = call(mixture.float(), HEIGHT.float(), HEIGHT.float())(X.float())
    torch.testing.assert_close(single.double(), expected, atol=1e-3, rtol=1e-3)
    single.sum().backward()
    assert all(one.grad.dtype == torch.float32 for one in mixture.parameters())


LINE = Partition.boxes([0.0], [1.0], [2])
WRONG: dict[str, tuple[Callable[[], Any], type[PhysimError], str]] = {
    "points": (lambda: make(None)(None), SettingsError, "points: got NoneType"),
    "list": (
        lambda: make(None)({**POINTS, "start": [0.0]}, condition=HEIGHT),
        SettingsError,
        r"points\['start'\]: got list",
    ),
    "flat": (
        lambda: make(None)({**POINTS, "start": X[0]}, condition=HEIGHT),
        ShapeError,
        r"points\['start'\]: got shape \(1,\)",
    ),
    "bare": (
        lambda: make(None)(POINTS, {"start": HEIGHT}, condition=HEIGHT),
        SettingsError,
        r"data\['start'\]: got Tensor, expected a list",
    ),
    "complex": (lambda: call(make(None), HEIGHT + 0j, HEIGHT), SettingsError, r"\[0\]: got type"),
    "condition": (lambda: call(make(None), HEIGHT, [[1.0]]), SettingsError, "condition: got list"),
    "guess": (lambda: call(make(None), HEIGHT, HEIGHT, [0]), SettingsError, "start: got list"),
    "rows": (
        lambda: MixtureOfExperts(JetBasis("x", functions=2), {"e": match}, LINE),
        SettingsError,
        "rows: got function, expected",
    ),
    "partition": (
        lambda: MixtureOfExperts(JetBasis("x", functions=2), {}, None),
        SettingsError,
        "partition: got NoneType",
    ),
    "word": (lambda: Rows(residual=match, features="u"), SettingsError, "features: got 'u'"),
    "residual": (lambda: Rows(residual=1, features=("u",)), SettingsError, "residual: got 1"),
    "corner": (lambda: Partition.boxes(0.0, 1.0, 2), SettingsError, "lower: got 0.0"),
    "far": (lambda: Partition.boxes([0.0], [math.inf], [2]), SettingsError, "axis 0: got 2 boxes"),
    "parts": (lambda: Partition.boxes([0.0], [1.0], [2.5]), SettingsError, r"counts\[0\]: got 2.5"),
    "number": (lambda: Partition.from_index(len, 2.5, 1), SettingsError, "experts: got 2.5"),
    "index": (
        lambda: Partition.from_index(lambda x: x[:, 0], 2, 1).owner(X),
        SettingsError,
        "index: gave torch.float64",
    ),
    "functions": (lambda: JetBasis("x", functions=2.5), SettingsError, "functions: got 2.5"),
    "letters": (lambda: JetBasis("xx", functions=2), SettingsError, "coordinates: got 'xx'"),
    "one feature": (
        lambda: call(make(None), HEIGHT, HEIGHT)(X, "u"),
        SettingsError,
        "features: got 'u'",
    ),
}


@pytest.mark.parametrize(("wrong", "error", "match"), WRONG.values(), ids=WRONG.keys())
def test_errors_name_the_argument(
    wrong: Callable[[], Any], error: type[PhysimError], match: str
) -> None:
    with pytest.raises(error, match=match):
        wrong()


@kinds
def test_the_one_sample_of_a_basis_without_condition_is_lost(continuity: Any) -> None:
    mixture = make(continuity, JetBasis("x", functions=5, width=8), on_failure="mask")
    field = mixture(POINTS, {"start": [torch.ones(1, 1)]}, start=torch.full((1, 2, 5), math.nan))
    assert (field.report.status == Status.NON_FINITE).all()
    assert not field.coefficients.any()
