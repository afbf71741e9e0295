r"""Attention as a support vector machine: which token a head selects, and by what margin.

Gradient descent on one attention layer drives its weights along the direction that separates the
selected tokens from the others,

.. math:: \min_W \|W\| \quad\text{s.t.}\quad (x_{i,o_i} - x_{i,t})^\top W z_i \ge 1
    \quad\text{for all } t \ne o_i ,

in the Frobenius norm where W itself is trained and in the nuclear norm where its factors (keys and
queries) are. The margin is one over the least norm. Its derivative with respect to tokens and
queries follows from the multipliers :math:`\mu` (envelope theorem): the least norm changes with a
constraint row :math:`a` by :math:`-\mu\, W` over the norm's own slope.

The statement is about one layer with frozen tokens: read it as a diagnostic of a head.

Reference: Tarzanagh, Li, Thrampoulidis & Oymak 2023, "Transformers as support vector machines",
problems (Att-SVM) and (Att-SVM*).
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    apply_on_failure,
    check_choice,
    check_finite,
    check_shape,
)

__all__ = ["AttentionMargin", "Norm", "attention_margin", "attention_svm", "direction_cosine"]

Norm = Literal["frobenius", "nuclear"]
_SOLVED = ("optimal", "optimal_inaccurate")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionMargin(Solution[Tensor]):
    """The separating weights, with what decides them.

    The value is W of shape ``(d, d)``, NaN if the tokens cannot be separated.

    Attributes:
        margin: One over the norm of W; zero if infeasible.
        multipliers: Importance of each pair of sample and token, shape ``(n, T)``, zero for the
            selected ones.
        slack: Smallest uniform violation that remains with bounded weights; zero if feasible.
        rank: Of W, singular values above a ten-thousandth of the largest.
    """

    margin: float
    multipliers: Float[Tensor, "n t"]
    slack: float
    rank: int


def attention_svm(
    tokens: Float[Tensor, "n t d"],
    queries: Float[Tensor, "n d"],
    selected: Int[Tensor, " n"],
    *,
    norm: Norm = "frobenius",
    on_failure: OnFailure = "raise",
) -> AttentionMargin:
    """Solve for the weights of least norm that select given tokens.

    Args:
        tokens: Keys of n sequences of T tokens.
        queries: One query a sequence.
        selected: Index of the token that each query selects.
        norm: ``"frobenius"`` (quadratic program) or ``"nuclear"`` (semidefinite program).
        on_failure: What happens when no weights select them.

    Returns:
        The solution. Infeasible problems have status ``INFEASIBLE``, the smallest slack and no
        direction.

    Raises:
        InfeasibleError: If the tokens cannot be separated and ``on_failure="raise"``.
        ShapeError: If shapes do not fit, or there is no sample or no second token.
        SettingsError: If a selection is no index of a token.
        NonFiniteError: If tokens or queries hold NaN or infinity.

    Cost: Frobenius for d above 32 is solved in the dual, on n(T - 1) multipliers; nuclear is a
    semidefinite program of 2d rows, for d up to about 30.

    Example:
        >>> tokens = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]).double()
        >>> found = attention_svm(tokens, torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0]))
        >>> round(found.margin, 6)
        2.0
    """
    check_choice("norm", norm, ("frobenius", "nuclear"))
    sizes = check_shape("tokens", tokens, "n t d")
    check_shape("queries", queries, "n d", sizes=sizes)
    check_shape("selected", selected, "n", sizes=sizes)
    _check_selection(selected, sizes["n"], sizes["t"])
    check_finite("tokens", tokens.detach())
    check_finite("queries", queries.detach())
    rows = _rows(tokens.detach(), queries.detach(), selected)
    weights, multipliers, slack = _solve_in_units(rows.double().cpu(), sizes["d"], norm)
    feasible = weights is not None
    nothing = torch.full((sizes["d"], sizes["d"]), torch.nan, dtype=torch.float64)
    w = nothing if weights is None else weights
    singular = torch.linalg.svdvals(w) if feasible else torch.zeros(1)
    least = float(singular.square().sum().sqrt() if norm == "frobenius" else singular.sum())
    table = torch.zeros(sizes["n"], sizes["t"], dtype=torch.float64)
    table[_others(selected.cpu(), sizes["t"])] = multipliers
    violation = float((1.0 - rows.double().cpu() @ w.reshape(-1)).clamp(min=0.0).max())
    status = Status.CONVERGED if feasible else Status.INFEASIBLE
    result = AttentionMargin(
        value=w.to(tokens),
        report=Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(1),
            residual=torch.tensor(violation if feasible else slack, dtype=torch.float64),
        ),
        margin=1.0 / least if feasible else 0.0,
        multipliers=table.to(tokens),
        slack=slack,
        rank=int((singular > 1e-4 * singular[0]).sum()) if feasible else 0,
    )
    apply_on_failure(result.report, on_failure, solution=result, what="attention_svm")
    return result


def attention_margin(
    tokens: Float[Tensor, "n t d"],
    queries: Float[Tensor, "n d"],
    selected: Int[Tensor, " n"],
    *,
    norm: Norm = "frobenius",
) -> Float[Tensor, ""]:
    """Margin of a selection, differentiable with respect to tokens and queries.

    Args:
        tokens: Keys of n sequences of T tokens.
        queries: One query a sequence.
        selected: Index of the token that each query selects.
        norm: Norm of the weights.

    Returns:
        One over the least norm; maximise it to make tokens easier to tell apart.

    Raises:
        InfeasibleError: If the tokens cannot be separated.

    Gradients: first order, from the multipliers; where they are not unique, one of the
    subgradients.
    """
    found = attention_svm(tokens, queries, selected, norm=norm)
    rows = _rows(tokens, queries, selected)
    multipliers = found.multipliers[_others(selected, tokens.shape[1])]
    result: Tensor = _Margin.apply(  # type: ignore[no-untyped-call]
        rows, found.value.reshape(-1), multipliers, found.margin
    )
    return result


def direction_cosine(first: Tensor, second: Tensor) -> float:
    """Cosine between two matrices as vectors.

    Args:
        first: Any shape.
        second: The same shape.

    Returns:
        1 where they are one direction.
    """
    lengths = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    return float((first * second).sum() / lengths)


class _Margin(torch.autograd.Function):
    """Least norm as a function of the constraint rows: d|W| = -multipliers . (dA W)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weights: Tensor, multipliers: Tensor, margin: float
    ) -> Tensor:
        ctx.save_for_backward(weights, multipliers)
        ctx.margin = margin
        return rows.new_tensor(margin)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        weights, multipliers = ctx.saved_tensors
        return slope * ctx.margin**2 * torch.outer(multipliers, weights), None, None, None


def _others(selected: Tensor, count: int) -> Tensor:
    places = torch.arange(count, device=selected.device)
    return places != selected[:, None]


def _rows(tokens: Tensor, queries: Tensor, selected: Tensor) -> Float[Tensor, "c dd"]:
    n, count, _ = tokens.shape
    chosen = tokens[torch.arange(n, device=tokens.device), selected]
    differences = chosen[:, None] - tokens
    products = torch.einsum("ntd,ne->ntde", differences, queries).reshape(n, count, -1)
    return products[_others(selected, count)]


def _check_selection(selected: Tensor, n: int, count: int) -> None:
    if not n or count < 2:
        raise ShapeError(
            f"tokens: got {n} samples of {count} tokens, expected at least one sample and two "
            "tokens, one to select and one to tell it from"
        )
    is_index = not selected.is_floating_point() and not selected.is_complex()
    if not is_index or bool(((selected < 0) | (selected >= count)).any()):
        raise SettingsError(
            f"selected: got {selected.tolist()} ({selected.dtype}), expected whole numbers from 0 "
            f"to {count - 1}"
        )


def _solve_in_units(rows: Tensor, d: int, norm: Norm) -> tuple[Tensor | None, Tensor, float]:
    """`_solve` with rows of about one, where the solver's tolerances and bounds are meant."""
    unit = float(torch.linalg.vector_norm(rows, dim=1).max()) or 1.0
    weights, multipliers, slack = _solve(rows / unit, d, norm)
    return None if weights is None else weights / unit, multipliers / unit, slack


def _solve(rows: Tensor, d: int, norm: Norm) -> tuple[Tensor | None, Tensor, float]:
    """Weights, multipliers of the least norm (not of its square), and slack."""
    cp: Any = importlib.import_module("cvxpy")

    a = rows.numpy()
    if norm == "frobenius" and d > 32:
        return _solve_dual(rows, d)
    w = cp.Variable((d, d))
    constraint = a @ cp.vec(w, order="C") >= 1
    goal = 0.5 * cp.sum_squares(w) if norm == "frobenius" else cp.normNuc(w)
    problem = cp.Problem(cp.Minimize(goal), [constraint])
    _run(cp, problem)
    if problem.status not in _SOLVED or w.value is None:
        return None, torch.zeros(len(rows), dtype=torch.float64), _smallest_slack(a)
    weights = torch.from_numpy(w.value)
    multipliers = torch.from_numpy(constraint.dual_value.ravel())
    # The multipliers of half the square exceed those of the norm by the norm.
    scale = float(torch.linalg.matrix_norm(weights)) if norm == "frobenius" else 1.0
    return weights, multipliers / scale, 0.0


def _solve_dual(rows: Tensor, d: int) -> tuple[Tensor | None, Tensor, float]:
    r"""Frobenius by its dual, :math:`\max 1^\top\nu - \tfrac12\|A^\top\nu\|^2`, W = A' nu."""
    cp: Any = importlib.import_module("cvxpy")

    a = rows.numpy()
    nu = cp.Variable(len(a), nonneg=True)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a.T @ nu) - cp.sum(nu)))
    _run(cp, problem)
    if problem.status not in _SOLVED or nu.value is None:
        return None, torch.zeros(len(rows), dtype=torch.float64), _smallest_slack(a)
    values = torch.from_numpy(nu.value)
    w = rows.T @ values
    return w.view(d, d), values / torch.linalg.vector_norm(w), 0.0


def _run(cp: Any, problem: Any) -> None:
    tight = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
    with warnings.catch_warnings():
        # Tolerances are beyond what every problem allows; the report tells the violation.
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver=cp.CLARABEL, **tight)


def _smallest_slack(a: Any) -> float:
    """Least s with ``A w >= 1 - s`` over weights of entries up to 1000; 1 if nothing separates."""
    import numpy as np
    from scipy.optimize import linprog

    m, n = a.shape
    cost = np.append(np.zeros(n), 1.0)
    bounds = [(-1e3, 1e3)] * n + [(0, None)]
    found = linprog(cost, A_ub=np.hstack([-a, -np.ones((m, 1))]), b_ub=-np.ones(m), bounds=bounds)
    return float(found.fun) if found.success else float("nan")
