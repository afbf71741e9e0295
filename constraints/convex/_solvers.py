"""Solvers behind a convex layer: the interior point of this package, and diffcp for other cones.

`plug_in` makes either known to cvxpylayers. Neither solver is taken at its word:
the violation is recomputed after each solve, and a status that it denies is taken back.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from constraints.convex._canonical import CanonicalForm, CanonicalProgram
from solvers.core import Report, Status
from solvers.nonlinear.interior_point import ConeProgramData, solve_cone_programs

__all__ = ["DiffcpSolver", "InteriorPointSolver", "plug_in"]

_CERTIFICATE = 1e-6


def plug_in(solver: type[_Reporting], *settings: Any) -> Any:
    """Make a solver of this module with the interface of cvxpylayers.

    Args:
        solver: `InteriorPointSolver` or `DiffcpSolver`.
        settings: Its settings.
    """
    from cvxpylayers.interfaces.base import SolverInterface

    return type(solver.__name__, (solver, SolverInterface), {})(*settings)


class _Reporting:
    """Keeps the report of the last solve of each thread."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self._local = threading.local()

    def setup(self, ctx: Any) -> None:
        self.form = CanonicalForm(ctx)

    @property
    def report(self) -> Report:
        report: Report = self._local.report
        return report

    def _keep(self, status: Tensor, iterations: Tensor, residual: Tensor) -> None:
        self._local.report = Report(status=status, iterations=iterations, residual=residual)


class InteriorPointSolver(_Reporting):
    """Quadratic cost, orthant and second-order cones.

    Args:
        tolerance: Violation, relative to the right-hand side, that still counts as converged.
        max_iterations: Interior-point steps at most.
        threads: Threads of the kernel.
    """

    canon_solver = "CLARABEL"
    supports_quad_obj = True

    def __init__(self, tolerance: float, max_iterations: int, threads: int):
        super().__init__(tolerance)
        self._settings = (max_iterations, threads)

    def solve_torch_batch(
        self, P: Any, q: Any, A: Any, dims: Any, solver_args: Any, needs_grad: bool
    ) -> tuple[Tensor, Tensor, Any]:
        """Solve canonical programs."""
        form, (max_iterations, threads) = self.form, self._settings
        program = form.assemble(P, q, A)
        M, b, zero = program.M, program.b, form.zero
        data = ConeProgramData(
            program.P,
            program.q,
            M[:, zero:].contiguous(),
            b[:, zero:].contiguous(),
            M[:, :zero].contiguous(),
            b[:, :zero].contiguous(),
            form.second_order,
            len(program.q),
        )
        solved = solve_cone_programs(
            data, max_iterations=max_iterations, threads=threads, differentiable=needs_grad
        )
        size = 1.0 + torch.cat([torch.zeros_like(data.q[:, :1]), b.abs()], 1).amax(1)
        violation = _distance(form, program.slack(solved.x)) / size
        status = _honest(solved.status, violation, self.tolerance)
        self._keep(status, solved.iterations, torch.maximum(solved.residual, violation))
        x, dual = solved.x, torch.cat([solved.y, solved.z], 1)
        return x.to(q.dtype), dual.to(q.dtype), (solved, program, x, dual, status)

    def derivative_torch_batch(
        self, dprimal: Any, ddual: Any, saved_state: Any
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of the entries."""
        solved, program, x, dual, status = saved_state
        u, to_h, to_b = solved.adjoint(dprimal.double().contiguous())
        good = (status == Status.CONVERGED)[:, None]
        u, rows = (a.where(good, 0.0) for a in (u, -torch.cat([to_b, to_h], 1)))
        parts = self.form.pull_back(program, x, dual, u, rows)
        return tuple(p if p is None else p.to(dprimal.dtype) for p in parts)  # type: ignore[return-value]


class DiffcpSolver(_Reporting):
    """Any cone that diffcp knows, one item after the other.

    Args:
        tolerance: Violation, relative to the right-hand side, that still counts as converged.
        method: Solver that diffcp calls.
    """

    canon_solver = "DIFFCP"
    supports_quad_obj = False

    def __init__(self, tolerance: float, method: str = "Clarabel"):
        super().__init__(tolerance)
        self._method = method

    def solve_torch_batch(
        self, P: Any, q: Any, A: Any, dims: Any, solver_args: Any, needs_grad: bool
    ) -> tuple[Tensor, Tensor, Any]:
        """Solve canonical programs."""
        program = self.form.assemble(None, q, A)
        batch, n = program.q.shape
        x, dual = program.q.new_zeros(batch, n), program.b.clone()
        status = torch.full((batch,), int(Status.BREAKDOWN))
        adjoints: list[Any] = [None] * batch
        for item in range(batch):
            entries = (program.M[item], program.b[item], program.q[item])
            if not all(bool(entry.isfinite().all()) for entry in entries):
                status[item], dual[item] = int(Status.NON_FINITE), 0.0
                continue
            x[item], dual[item], status[item], adjoints[item] = self._solve_item(*entries)
        residual = self._optimality(program, x, dual)
        status = _honest(status, residual, self.tolerance)
        status = self._explain(program, x, dual, status)
        lost = ~(x.isfinite().all(1) & dual.isfinite().all(1))[:, None]
        x, dual = x.masked_fill(lost, 0.0), dual.masked_fill(lost, 0.0)
        unknown = status == Status.NON_FINITE
        self._keep(status, torch.zeros_like(status), residual.masked_fill(unknown, torch.nan))
        return x.to(q.dtype), dual.to(q.dtype), (adjoints, status)

    def _solve_item(self, M: Tensor, b: Tensor, q: Tensor) -> tuple[Tensor, Tensor, int, Any]:
        import diffcp  # type: ignore[import-untyped]

        rows = scipy.sparse.csc_matrix(M.numpy())
        settings = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
        try:
            x, y, _, _, adjoint = diffcp.solve_and_derivative(
                rows,
                b.numpy(),
                q.numpy(),
                self._cones(),
                solve_method=self._method,
                mode="dense",
                verbose=False,
                **(settings if self._method == "Clarabel" else {}),
            )
        except diffcp.SolverError as error:
            words = str(error).lower()
            named = Status.INFEASIBLE if "infeasible" in words else Status.BREAKDOWN
            named = Status.UNBOUNDED if "unbounded" in words else named
            return torch.zeros_like(q), torch.zeros_like(b), int(named), None
        return torch.from_numpy(x), torch.from_numpy(y), int(Status.CONVERGED), adjoint

    def _cones(self) -> dict[str, Any]:
        form = self.form
        cones: dict[str, Any] = {"z": form.zero, "l": form.flat, "q": list(form.second_order)}
        cones |= {"ep": form.exponential, "s": list(form.semidefinite)}
        return {kind: size for kind, size in cones.items() if size}

    def _optimality(self, program: CanonicalProgram, x: Tensor, dual: Tensor) -> Tensor:
        """Largest of violation, infeasibility of the multipliers, and gap, relative to the data."""
        slack = program.slack(x)
        outside = _beyond(self._cones(), slack) / (1.0 + program.b.abs().amax(1))
        slope = program.q + (program.M.mT @ dual[..., None])[..., 0]
        size = 1.0 + program.q.abs().amax(1)
        cost, other = (program.q * x).sum(1), (program.b * dual).sum(1)
        gap = (cost + other).abs() / (1.0 + cost.abs() + other.abs())
        return torch.stack([outside, slope.abs().amax(1) / size, gap]).amax(0).nan_to_num(torch.inf)

    def _explain(
        self, program: CanonicalProgram, x: Tensor, dual: Tensor, status: Tensor
    ) -> Tensor:
        """Name items without solution whose multipliers or unknowns prove it."""
        is_open = (status == Status.STALLED) | (status == Status.BREAKDOWN)
        rest = (program.M.mT @ dual[..., None])[..., 0].abs().amax(1)
        gain = -(program.b * dual).sum(1)
        proof = (gain > 0) & (rest <= _CERTIFICATE * gain)
        along = -(program.M @ x[..., None])[..., 0].nan_to_num(0.0)
        fall = -(program.q * x).sum(1)
        ray = (fall > 0) & (_beyond(self._cones(), along) <= _CERTIFICATE * fall) & ~proof
        status = status.masked_fill(is_open & proof, int(Status.INFEASIBLE))
        return status.masked_fill(is_open & ray, int(Status.UNBOUNDED))

    def derivative_torch_batch(
        self, dprimal: Any, ddual: Any, saved_state: Any
    ) -> tuple[None, Tensor, Tensor]:
        """Gradients of the entries."""
        adjoints, status = saved_state
        batch, n = dprimal.shape
        r, c = self.form.places
        slope = torch.zeros(batch, n + 1, dtype=torch.float64)
        entries = torch.zeros(batch, len(r), dtype=torch.float64)
        nothing = np.zeros(self.form.rows)
        for item in range(batch):
            if status[item] != Status.CONVERGED:
                continue
            dM, db, dq = adjoints[item](dprimal[item].double().numpy(), nothing, nothing)
            slope[item, :-1] = torch.from_numpy(dq)
            inner = torch.from_numpy(dM.toarray())
            padded = torch.cat([-inner, torch.from_numpy(db)[:, None]], 1)
            entries[item] = padded[r, c]
        return None, slope.to(dprimal.dtype), entries.to(dprimal.dtype)


def _honest(status: Tensor, violation: Tensor, tolerance: float) -> Tensor:
    """Take back ``CONVERGED`` from items that violate their rows."""
    lies = (status == Status.CONVERGED) & ~(violation <= tolerance)
    return status.masked_fill(lies, int(Status.STALLED))


def _distance(form: CanonicalForm, slack: Tensor) -> Tensor:
    """How far slacks lie outside equalities, orthant and second-order cones."""
    zero, end = form.zero, form.zero + form.flat
    parts = [slack[:, :zero].abs(), (-slack[:, zero:end]).clamp(min=0.0)]
    for size in form.second_order:
        cone = slack[:, end : end + size]
        parts.append((cone[:, 1:].norm(dim=1) - cone[:, 0]).clamp(min=0.0)[:, None])
        end += size
    return torch.cat([*parts, slack.new_zeros(len(slack), 1)], 1).amax(1)


def _beyond(cones: dict[str, Any], slack: Tensor) -> Tensor:
    """How far slacks lie outside any product of cones."""
    from diffcp.cones import parse_cone_dict, pi  # type: ignore[import-untyped]

    listed = parse_cone_dict(cones)
    nearest = [torch.from_numpy(pi(row.numpy(), listed)) for row in slack]
    return (slack - torch.stack(nearest)).abs().amax(1)
