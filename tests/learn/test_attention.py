"""Attention as a support vector machine: directions of training, margins and their gradients."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from physim.learn.landscape import Norm, attention_margin, attention_svm, direction_cosine
from solvers.core import InfeasibleError, NonFiniteError, SettingsError, ShapeError, Status


def problem(seed: int, n: int, t: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, queries, labels and the value vector, all of length one."""
    g = torch.Generator().manual_seed(seed)
    value = torch.randn(d, generator=g, dtype=torch.float64)
    labels = torch.where(torch.randn(n, generator=g) > 0, 1.0, -1.0).double()
    tokens = torch.randn(n, t, d, generator=g, dtype=torch.float64)
    queries = torch.randn(n, d, generator=g, dtype=torch.float64)
    return (
        tokens / tokens.norm(dim=-1, keepdim=True), queries / queries.norm(dim=-1, keepdim=True),
        labels, value / value.norm(),
    )  # fmt: skip


def best_tokens(tokens: Tensor, labels: Tensor, value: Tensor) -> Tensor:
    return ((tokens @ value) * labels[:, None]).argmax(1)


def train(seed: int, *, factored: bool, steps: int = 1000) -> tuple[Tensor, Tensor]:
    """Normalised gradient descent on one attention layer; weights and what it selects."""
    tokens, queries, labels, value = problem(seed, 6, 8, 10)
    g = torch.Generator().manual_seed(seed)
    decay = 2.2e-16 if factored else 0.0
    if factored:
        start = 0.05 * torch.randn(2, 10, 10, generator=g, dtype=torch.float64)
        params = [start[0].clone().requires_grad_(), start[1].clone().requires_grad_()]
    else:
        params = [torch.zeros(10, 10, dtype=torch.float64, requires_grad=True)]

    def scores() -> Tensor:
        w = params[0] @ params[1].T if factored else params[0]
        return torch.softmax(torch.einsum("ntd,de,ne->nt", tokens, w, queries), -1)

    for _ in range(steps):
        out = torch.einsum("nt,ntd,d->n", scores(), tokens, value)
        # Factors need the trace of a decay: without it the softmax saturates, and slopes become
        # rounding, long before the direction is reached.
        penalty = sum((p.square().sum() for p in params), torch.zeros(()))
        loss = torch.nn.functional.softplus(-labels * out).mean() + decay * penalty
        slopes = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, slope in zip(params, slopes, strict=True):
                p -= 0.1 * slope / (slope.norm() + decay)
    w = params[0] @ params[1].T if factored else params[0]
    return w.detach(), scores().detach().argmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("factored", [False, True])
def test_training_goes_along_the_direction_of_its_norm(factored: bool) -> None:
    cosines: dict[str, list[float]] = {"frobenius": [], "nuclear": []}
    for seed in range(4):
        w, selected = train(seed, factored=factored)
        tokens, queries, _, _ = problem(seed, 6, 8, 10)
        for norm, values in cosines.items():
            found = attention_svm(tokens, queries, selected, norm=norm)  # type: ignore[arg-type]
            values.append(direction_cosine(w, found.value))
    mean = {norm: sum(values) / 4 for norm, values in cosines.items()}
    own, other = ("nuclear", "frobenius") if factored else ("frobenius", "nuclear")
    assert min(cosines[own]) >= 0.98, cosines
    assert mean[own] > mean[other] + 0.08, mean


def feasible(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    tokens, queries, labels, value = problem(seed, 3, 4, 5)
    return tokens, queries, best_tokens(tokens, labels, value)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_solution_meets_its_constraints_and_multipliers_mark_the_active_ones(norm: str) -> None:
    tokens, queries, selected = feasible()
    found = attention_svm(tokens, queries, selected, norm=norm)  # type: ignore[arg-type]
    scores = torch.einsum("ntd,de,ne->nt", tokens, found.value, queries)
    gaps = scores.gather(1, selected[:, None]) - scores
    others = torch.arange(4) != selected[:, None]
    assert float(gaps[others].min()) == pytest.approx(1.0, abs=1e-7)
    assert float(found.multipliers.min()) > -1e-9
    inactive = others & (gaps > 1.01)
    assert float(found.multipliers[inactive].abs().sum()) < 1e-6
    # Strong duality: the least norm is the sum of its multipliers.
    assert float(found.multipliers.sum()) == pytest.approx(1 / found.margin, rel=1e-7)


def test_nuclear_solutions_have_low_rank_and_smaller_nuclear_norm() -> None:
    tokens, queries, selected = feasible()
    frobenius, nuclear = (
        attention_svm(tokens, queries, selected, norm=norm)  # type: ignore[arg-type]
        for norm in ("frobenius", "nuclear")
    )
    assert nuclear.rank <= frobenius.rank
    sums = [float(torch.linalg.svdvals(found.value).sum()) for found in (frobenius, nuclear)]
    assert sums[1] < sums[0]
    assert float(frobenius.value.norm()) < float(nuclear.value.norm())


def test_dual_of_wide_tokens_equals_the_primal() -> None:
    tokens, queries, selected = feasible()
    wide = torch.nn.functional.pad(tokens, (0, 30))
    found = attention_svm(wide, torch.nn.functional.pad(queries, (0, 30)), selected)
    small = attention_svm(tokens, queries, selected)
    assert found.margin == pytest.approx(small.margin, rel=1e-5)
    assert torch.allclose(found.value[:5, :5], small.value, atol=1e-4)
    assert torch.allclose(found.multipliers, small.multipliers, atol=1e-4)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_gradient_of_the_margin_by_differences(norm: str) -> None:
    tokens, queries, selected = feasible(1)
    g = torch.Generator().manual_seed(0)
    tokens.requires_grad_()
    queries.requires_grad_()
    margin = attention_margin(tokens, queries, selected, norm=norm)  # type: ignore[arg-type]
    slopes = torch.autograd.grad(margin, (tokens, queries))
    for which in range(2):
        inputs = [tokens.detach(), queries.detach()]
        move = torch.randn(inputs[which].shape, generator=g, dtype=torch.float64)
        ends = []
        for step in (1e-4, -1e-4):
            moved = list(inputs)
            moved[which] = inputs[which] + step * move
            ends.append(float(attention_margin(*moved, selected, norm=norm)))  # type: ignore[arg-type]
        difference = (ends[0] - ends[1]) / 2e-4
        assert float((slopes[which] * move).sum()) == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_gradient_agrees_with_a_differentiable_convex_solver(norm: str) -> None:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    tokens, queries, selected = feasible(1)
    others = torch.arange(4) != selected[:, None]
    rows, w = cp.Parameter((9, 25)), cp.Variable(25)
    square = cp.reshape(w, (5, 5), order="C")
    goal = cp.sum_squares(w) if norm == "frobenius" else cp.normNuc(square)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(goal), [rows @ w >= 1]), [rows], [w])

    def theirs(x: Tensor) -> Tensor:
        gaps = x[torch.arange(3), selected][:, None] - x
        a = torch.einsum("ntd,ne->ntde", gaps, queries).reshape(3, 4, 25)[others]
        (found,) = layer(a, solver_args={"eps": 1e-10})
        singular = torch.linalg.svdvals(found.view(5, 5))
        return 1 / (found.norm() if norm == "frobenius" else singular.sum())

    slopes = []
    for margin in (theirs, lambda x: attention_margin(x, queries, selected, norm=norm)):  # type: ignore[arg-type]
        x = tokens.clone().requires_grad_()
        slopes.append(torch.autograd.grad(margin(x), x)[0])
    assert float((slopes[0] - slopes[1]).abs().max()) < 1e-6


def test_inseparable_tokens_have_a_slack_and_no_direction() -> None:
    # The selected token is the mean of two others: no weights prefer it to both.
    tokens = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]]).double()
    queries = torch.tensor([[1.0, 0.5]]).double()
    selected = torch.tensor([2])
    with pytest.raises(InfeasibleError):
        attention_svm(tokens, queries, selected)
    for norm in ("frobenius", "nuclear"):
        found = attention_svm(tokens, queries, selected, norm=norm, on_failure="mask")  # type: ignore[arg-type]
        assert int(found.status) == Status.INFEASIBLE
        assert found.slack == pytest.approx(1.0)
        assert found.margin == 0.0
        assert bool(found.value.isnan().all())


def test_feasibility_agrees_with_a_linear_program() -> None:
    for seed in range(12):
        tokens, queries, labels, value = problem(seed, 4, 5, 2)
        selected = best_tokens(tokens, labels, value)
        rows = [
            torch.outer(tokens[i, selected[i]] - tokens[i, t], queries[i]).flatten()
            for i in range(4) for t in range(5) if t != int(selected[i])
        ]  # fmt: skip
        a = torch.stack(rows).numpy()
        separable = linprog([0.0] * 4, A_ub=-a, b_ub=[-1.0] * len(a), bounds=(None, None)).success
        found = attention_svm(tokens, queries, selected, on_failure="mask")
        assert (int(found.status) == Status.CONVERGED) == separable


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="queries"):
        attention_svm(torch.ones(2, 3, 4), torch.ones(2, 5), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
@pytest.mark.parametrize("unit", [1e-6, 1e3, 1e6])
def test_margin_scales_with_the_unit_of_tokens(norm: Norm, unit: float) -> None:
    tokens, queries, labels, value = problem(3, 3, 4, 5)
    selected = best_tokens(tokens, labels, value)
    one = tokens.clone().requires_grad_()
    other = (unit * tokens).requires_grad_()
    found = attention_margin(one, queries, selected, norm=norm)
    scaled = attention_margin(other, queries, selected, norm=norm)
    torch.testing.assert_close(scaled / unit, found, rtol=1e-6, atol=0)
    slopes = [torch.autograd.grad(y, x)[0] for y, x in ((found, one), (scaled, other))]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_selected_is_refused() -> None:
    tokens, queries = torch.randn(2, 3, 4).double(), torch.randn(2, 4).double()
    for wrong in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(SettingsError, match="selected: got"):
            attention_svm(tokens, queries, wrong)
    first = torch.tensor([0, 0])
    with pytest.raises(ShapeError, match="two tokens"):
        attention_svm(tokens[:, :1], queries, first)
    with pytest.raises(ShapeError, match="one sample"):
        attention_svm(tokens[:0], queries[:0], first[:0])
    with pytest.raises(NonFiniteError, match="tokens"):
        attention_svm(tokens * torch.nan, queries, first)
