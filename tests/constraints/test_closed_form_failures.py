"""Items without an answer in closed forms: named, set apart, and never in the way of others."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from constraints import (
    AffineEquality,
    Box,
    DivergenceFree,
    InfeasibleError,
    Integral,
    NonFiniteError,
    NumericalWarning,
    SettingsError,
    ShapeError,
    Simplex,
    Solution,
    Status,
)

Inputs = dict[str, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


ROWS = normal(2, 6, seed=9)
TWICE = torch.cat([ROWS, 2.0 * ROWS])


def twice_rows(inputs: Inputs) -> None:
    inputs["b"][1, 2] += 1.0


def dependent_rows(inputs: Inputs) -> None:
    inputs["A"][1, 1] = 2.0 * inputs["A"][1, 0]
    inputs["b"][1, 1] = 2.0 * inputs["b"][1, 0]


def contradicting_rows(inputs: Inputs) -> None:
    inputs["A"][1, 1] = 2.0 * inputs["A"][1, 0]


def crossed_bounds(inputs: Inputs) -> None:
    inputs["lower"][1] = inputs["upper"][1] + 1.0


def put(name: str, value: float) -> Callable[[Inputs], None]:
    def spoil(inputs: Inputs) -> None:
        inputs[name][1].view(-1)[0] = value

    return spoil


@dataclass(frozen=True)
class Case:
    make: Callable[..., torch.nn.Module]
    inputs: Inputs
    spoil: Callable[[Inputs], None]
    status: Status
    match: str
    error: type[Exception] = NonFiniteError

    def spoiled(self) -> Inputs:
        inputs = {name: one.clone() for name, one in self.inputs.items()}
        self.spoil(inputs)
        return inputs


def lost(make: Callable[..., torch.nn.Module], inputs: Inputs, name: str, value: float) -> Case:
    return Case(make, inputs, put(name, value), Status.NON_FINITE, rf"{name} at index \(1, 0")


FIXED = {"x": normal(3, 6), "b": normal(3, 2, seed=1)}
PER_ITEM = {**FIXED, "A": normal(3, 2, 6, seed=2)}
FOUR = {"x": normal(3, 6), "b": normal(3, 6, seed=1) @ TWICE.mT}
BOUNDS = {
    "x": 2.0 * normal(3, 5),
    "lower": -normal(3, 5).abs(),
    "upper": normal(3, 5, seed=1).abs(),
}
FIELD = {"field": normal(3, 4, 2), "total": normal(3, seed=1)}
FLOW = {"velocity": normal(3, 2, 4, 6)}


def affine(**settings: Any) -> AffineEquality:
    return AffineEquality(ROWS, **settings)


def affine_twice(**settings: Any) -> AffineEquality:
    return AffineEquality(TWICE, **settings)


def smooth_box(**settings: Any) -> Box:
    return Box(smooth=True, **settings)


def integral(**settings: Any) -> Integral:
    return Integral(normal(4, 2, seed=3), **settings)


def flow(**settings: Any) -> DivergenceFree:
    return DivergenceFree((0.5, 0.25), **settings)


def ball(**settings: Any) -> Simplex:
    return Simplex(norm="l1", **settings)


CASES = {
    "affine x": lost(affine, FIXED, "x", math.nan),
    "affine b": lost(affine, FIXED, "b", math.inf),
    "affine twice": Case(
        affine_twice, FOUR, twice_rows, Status.INFEASIBLE, r"first in item \(1,\)", InfeasibleError
    ),
    "affine A": lost(AffineEquality, PER_ITEM, "A", math.nan),
    "affine A x": lost(AffineEquality, PER_ITEM, "x", math.inf),
    "affine dependent": Case(
        AffineEquality,
        PER_ITEM,
        dependent_rows,
        Status.BREAKDOWN,
        r"rows of item \(1,\) depend",
        InfeasibleError,
    ),
    "affine contradiction": Case(
        AffineEquality,
        PER_ITEM,
        contradicting_rows,
        Status.INFEASIBLE,
        r"rows of item \(1,\) depend",
        InfeasibleError,
    ),
    "box x": lost(Box, BOUNDS, "x", math.nan),
    "box lower": lost(Box, BOUNDS, "lower", math.nan),
    "box upper": lost(smooth_box, BOUNDS, "upper", math.nan),
    "box crossed": Case(
        Box, BOUNDS, crossed_bounds, Status.INFEASIBLE, r"at index \(1, 0\)", InfeasibleError
    ),
    "smooth box crossed": Case(
        smooth_box, BOUNDS, crossed_bounds, Status.INFEASIBLE, r"at index \(1, 0\)", InfeasibleError
    ),
    "simplex": lost(Simplex, {"x": normal(3, 5)}, "x", math.nan),
    "simplex inf": lost(Simplex, {"x": normal(3, 5)}, "x", math.inf),
    "ball": lost(ball, {"x": normal(3, 5)}, "x", -math.inf),
    "integral": lost(integral, FIELD, "field", math.nan),
    "integral total": Case(
        integral, FIELD, put("total", math.nan), Status.NON_FINITE, r"total at index \(1,\)"
    ),
    "flow": lost(flow, FLOW, "velocity", math.inf),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
LAYERS = {case.make: name for name, case in CASES.items()}.values()
each_layer = pytest.mark.parametrize("case", [CASES[name] for name in LAYERS], ids=LAYERS)


def solve(layer: Any, inputs: Inputs) -> Solution[Tensor]:
    found: Solution[Tensor] = layer.solve(*inputs.values())
    return found


@every
def test_a_failed_item_is_named_and_the_error_carries_the_others(case: Case) -> None:
    inputs = case.spoiled()
    with pytest.raises(case.error, match=case.match) as caught:
        case.make()(*inputs.values())
    carried = caught.value.solution  # type: ignore[attr-defined]
    masked = solve(case.make(on_failure="mask"), inputs)
    assert torch.equal(carried.value, masked.value)
    assert (carried.status == masked.status).all()


@every
def test_a_failed_item_leaves_values_and_gradients_of_the_others_alone(case: Case) -> None:
    layer = case.make(on_failure="mask")
    good = {name: one.clone().requires_grad_() for name, one in case.inputs.items()}
    expected = layer(*good.values())
    expected.square().sum().backward()

    inputs = {name: one.requires_grad_() for name, one in case.spoiled().items()}
    solution = solve(layer, inputs)
    x, status = solution.value, solution.status
    assert torch.equal(x, layer(*inputs.values()))
    assert x.isfinite().all()
    is_bad = status != Status.CONVERGED
    assert is_bad.reshape(3, -1).any(1).tolist() == [False, True, False]
    assert (status[is_bad] == case.status).all()
    assert torch.equal(x[~is_bad], expected[~is_bad])
    assert (solution.residual_norm[~is_bad] < 1e-12).all()
    if case.status == Status.NON_FINITE:
        assert (x[is_bad] == 0).all()
        assert solution.residual_norm[is_bad].isnan().all()
    x.square().sum().backward()
    for name, one in inputs.items():
        assert torch.equal(one.grad[[0, 2]], good[name].grad[[0, 2]])
        bad = is_bad if is_bad.ndim <= one.ndim else is_bad.any(1)
        assert (one.grad[bad] == 0).all()


@every
def test_inside_vmap_failed_items_are_nan_or_masked(case: Case) -> None:
    inputs = case.spoiled()
    masked = solve(case.make(on_failure="mask"), inputs)
    failed = (masked.status != Status.CONVERGED).reshape(
        *masked.status.shape, *(1,) * (masked.value.ndim - masked.status.ndim)
    )
    mapped = torch.func.vmap(case.make(on_failure="mask"))(*inputs.values())
    torch.testing.assert_close(mapped, masked.value, atol=1e-12, rtol=1e-12)
    marked = torch.func.vmap(case.make())(*inputs.values())
    assert torch.equal(marked.isnan(), failed.expand_as(marked))


@every
def test_a_warning_names_the_line_of_the_user(case: Case) -> None:
    layer, inputs = case.make(on_failure="warn"), case.spoiled()
    for call in (layer, layer.solve):
        with pytest.warns(NumericalWarning, match=case.status.name) as caught:
            call(*inputs.values())
        assert [w.filename for w in caught] == [__file__]


def test_a_shared_argument_gets_nothing_from_failed_items() -> None:
    layer = AffineEquality(ROWS, on_failure="mask")
    b = normal(2, seed=1).requires_grad_()
    x = FIXED["x"].clone()
    x[1, 3] = math.nan
    layer(x, b).square().sum().backward()
    again = b.detach().clone().requires_grad_()
    layer(FIXED["x"][[0, 2]], again).square().sum().backward()
    torch.testing.assert_close(b.grad, again.grad)


def test_projected_items_violate_their_law_least() -> None:
    inputs = {name: one.requires_grad_() for name, one in CASES["affine twice"].spoiled().items()}
    layer = AffineEquality(TWICE, on_failure="project")
    assert layer.solve(*inputs.values()).status.tolist() == [0, Status.INFEASIBLE, 0]
    x = layer(*inputs.values())
    # Normal equations: what is left over, with rows of length one, is orthogonal to all rows.
    length = TWICE.norm(dim=1)
    left_over = (x @ TWICE.mT - inputs["b"]) / length
    assert (left_over @ (TWICE / length[:, None])).abs().max() < 1e-12
    assert torch.autograd.gradcheck(layer, tuple(inputs.values()))

    box = Box(on_failure="project")
    bounds = {name: one.requires_grad_() for name, one in CASES["box crossed"].spoiled().items()}
    middle = box(*bounds.values())[1]
    torch.testing.assert_close(middle, (bounds["lower"] + bounds["upper"])[1] / 2.0)
    assert torch.autograd.gradcheck(box, tuple(bounds.values()))


def test_what_is_lost_has_no_nearest_point() -> None:
    for name in ("affine x", "box x"):
        case = CASES[name]
        with pytest.raises(NonFiniteError, match=case.match):
            case.make(on_failure="project")(*case.spoiled().values())
    for make in (AffineEquality, Simplex, integral, flow):
        with pytest.raises(SettingsError, match="on_failure: got 'project'"):
            make(on_failure="project")


def test_infinite_numbers_that_mean_something_are_no_failure() -> None:
    inf = math.inf
    x = torch.tensor([-inf, 0.5, inf]).double()
    assert Box()(x, 0.0, 1.0).tolist() == [0.0, 0.5, 1.0]
    assert Box()(torch.tensor([-3.0, 3.0]), -inf, inf).tolist() == [-3.0, 3.0]
    assert Simplex()(x[:2]).tolist() == [0.0, 1.0]
    with pytest.raises(NonFiniteError, match="x at index"):
        Simplex()(torch.tensor([-inf, -inf]))
    with pytest.raises(NonFiniteError, match="lower at index"):
        Box()(torch.zeros(2), torch.tensor([0.0, inf]), inf)
    with pytest.raises(NonFiniteError, match="result at index"):
        Integral(1.0)(torch.zeros(2, dtype=torch.float16), 1e6)


def test_weights_of_any_size_keep_their_integral() -> None:
    for size in (1e-200, 1e200):
        field = Integral(torch.full((4,), size, dtype=torch.float64))(normal(4), 3.0 * size)
        assert abs(float(field.sum()) - 3.0) < 1e-14


@each_layer
def test_layers_keep_double_precision_in_models_of_any_type(case: Case) -> None:
    model = torch.nn.ModuleList([case.make(), torch.nn.Linear(2, 2)])
    expected = model[0](*case.inputs.values())
    for moved in (copy.deepcopy(model).half(), copy.deepcopy(model).to(torch.float32)):
        assert moved[1].weight.dtype != torch.float64
        assert torch.equal(moved[0](*case.inputs.values()), expected)
    first = next(iter(case.inputs))
    single = {**case.inputs, first: case.inputs[first].float()}
    assert model[0].float()(*single.values()).dtype == torch.float32
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again[0](*case.inputs.values()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model[0](*case.inputs.values()), expected)


def test_a_loaded_state_replaces_rows_and_what_was_made_of_them() -> None:
    for rows in (normal(4, 6, seed=7), torch.cat([ROWS, ROWS])):
        source, target = AffineEquality(rows), AffineEquality(normal(4, 6, seed=8))
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file))
        x, b = normal(3, 6), normal(3, 6, seed=1) @ rows.mT
        assert torch.equal(target(x, b), source(x, b))
    with pytest.raises(NonFiniteError, match="A at index"):
        target.load_state_dict({"A": torch.full((4, 6), math.nan)})


@each_layer
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_any_batch(case: Case, batch: tuple[int, ...]) -> None:
    layer = case.make()
    inputs = {name: one[0].expand((*batch, *one.shape[1:])) for name, one in case.inputs.items()}
    solution = solve(layer, inputs)
    one = layer(*(value[0] for value in case.inputs.values()))
    assert solution.all_converged
    assert solution.value.shape[: len(batch)] == batch
    assert solution.status.shape[: len(batch)] == batch
    torch.testing.assert_close(solution.value, one.expand(*batch, *one.shape))
    assert str(solution.report).startswith("Report")


@each_layer
def test_derivatives_of_every_kind(case: Case) -> None:
    # Where rows depend on each other a step to one side is no longer feasible.
    layer = case.make(on_failure="project") if case.make is affine_twice else case.make()
    inputs = {name: one[:1].clone() for name, one in case.inputs.items()}
    first, *rest = inputs.values()

    def call(x: Tensor) -> Tensor:
        out: Tensor = layer(x, *rest)
        return out

    reverse = torch.func.jacrev(call)(first)
    torch.testing.assert_close(torch.func.jacfwd(call)(first), reverse)
    torch.testing.assert_close(torch.autograd.functional.jacobian(call, first), reverse)
    tensors = tuple(one.requires_grad_() for one in inputs.values())
    assert torch.autograd.gradcheck(layer, tensors)


@pytest.mark.slow
@each_layer
def test_second_derivatives(case: Case) -> None:
    layer = case.make(on_failure="project") if case.make is affine_twice else case.make()
    tensors = tuple(one[:2].clone().requires_grad_() for one in case.inputs.values())
    assert torch.autograd.gradgradcheck(layer, tensors)


def test_pairs_that_were_not_asked_for_are_refused() -> None:
    calls: list[Callable[[], Tensor]] = [
        lambda: AffineEquality(ROWS)(normal(3, 6), normal(3, 1, 2)),
        lambda: AffineEquality(ROWS)(normal(3, 6), normal(5, 2)),
        lambda: AffineEquality()(normal(3, 6), normal(3, 2), normal(4, 2, 6)),
        lambda: Integral(0.5)(normal(3, 6), normal(3, 1)),
        lambda: Integral(0.5)(normal(3, 6), normal(5)),
        lambda: Box()(normal(3), normal(3, 1), 9.0),
        lambda: Box()(normal(3, 4), normal(4, 3), 9.0),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=r"shapes .*, expected"):
            call()
    one, many = normal(6), normal(5, 2)
    assert AffineEquality(ROWS)(one, many).shape == (5, 6)
    assert Integral(0.5)(one, normal(5)).shape == (5, 6)
