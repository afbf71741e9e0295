"""One step as a differentiable function of tensors, for either solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from physim.dynamics._adjoint import outputs
from physim.dynamics._assembly import StepData
from physim.dynamics._inputs import rotation_spans
from physim.dynamics._reference import ReferenceSolver, StepSolution
from physim.dynamics._transforms import is_transformed
from physim.model.tree import Tree
from solvers.core import Status
from solvers.kernels.algebra import quaternion_product


class StepSolver(Protocol):
    """What a backend offers: the solve and its adjoint."""

    @property
    def reference(self) -> ReferenceSolver:
        """The oracle, which also answers queries."""
        ...

    def solve(self, data: StepData, kappas: Sequence[Tensor]) -> StepSolution:
        """Solve a step at decreasing central-path parameters."""
        ...

    def adjoint(
        self,
        data: StepData,
        x: Tensor,
        kappa: Tensor,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs; those of the numbers may be zero unless wanted."""
        ...


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outputs of a step: next configuration and velocity, and how the solve went."""

    q: Tensor
    v: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    restarts: Tensor
    kappa_error: Tensor
    min_gap: Tensor
    impulses: Tensor


_INPUTS = len(fields(StepData))
_REPORTED = 7


def _as_data(values: Sequence[Tensor]) -> StepData:
    return StepData(*values)


def transport_cotangent(tree: Tree, q: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    """Carry a cotangent of ``q`` to ``x``, its tangent components kept.

    The next state and the solution of the gradient differ by what the smoothings differ.
    Components along a unit quaternion mean nothing and are dropped.
    """
    pieces, last = [], 0
    for _, start, _ in sorted(rotation_spans(tree), key=lambda span: span[1]):
        here, there, g = (list(y[:, start : start + 4].unbind(-1)) for y in (q, x, cotangent))
        turn = quaternion_product(there, [here[0], *[-y for y in here[1:]]])
        # Left multiplication is an isometry that takes the tangent space at q to that at x.
        radial = sum(a * b for a, b in zip(here, g, strict=True))
        flat = [a - radial * b for a, b in zip(g, here, strict=True)]
        moved = torch.stack(quaternion_product(turn, flat), dim=-1)
        pieces += [cotangent[:, last:start], moved]
        last = start + 4
    return torch.cat([*pieces, cotangent[:, last:]], dim=-1) if pieces else cotangent


def _flatten_batch(values: Sequence[Any], in_dims: Sequence[int | None], size: int) -> list[Any]:
    """Merge a mapped dimension into the batch: (N, B, ...) to (N B, ...)."""
    merged = []
    for value, dim in zip(values, in_dims, strict=True):
        if not isinstance(value, Tensor):
            merged.append(value)
            continue
        full = value.movedim(dim, 0) if dim is not None else value.expand(size, *value.shape)
        merged.append(full.reshape(-1, *full.shape[2:]))
    return merged


class _Adjoint(torch.autograd.Function):
    """Vector-Jacobian product of a step by a compiled adjoint: first derivatives only."""

    @staticmethod
    def forward(
        solver: StepSolver,
        with_numbers: bool,
        x: Tensor,
        kappa: Tensor,
        gq: Tensor,
        gv: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """Cotangents of the inputs."""
        result = solver.adjoint(_as_data(inputs), x, kappa, gq, gv, with_numbers=with_numbers)
        return tuple(getattr(result, field.name) for field in fields(StepData))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Refuse second derivatives, which only the reference has."""
        del ctx, cotangents
        raise RuntimeError(
            "second derivatives through the compiled step are not available; build the "
            'simulator with backend="reference" and use torch.autograd, not torch.func'
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Treat the mapped dimension as more batch."""
        merged = _flatten_batch(args, in_dims, info.batch_size)
        result = _Adjoint.apply(*merged)  # type: ignore[no-untyped-call]
        split = tuple(y.reshape(info.batch_size, -1, *y.shape[1:]) for y in result)
        return split, (0,) * len(split)


class _Step(torch.autograd.Function):
    """A step solved at the state's and, if asked, at the gradient's smoothing."""

    @staticmethod
    def forward(
        solver: StepSolver, kappa: Tensor, kappa_gradient: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Next configuration, next velocity, the solution of the gradient, reports."""
        data = _as_data(inputs)
        if kappa_gradient is None:
            solution = solver.solve(data, [kappa])
        else:
            smoother = torch.maximum(kappa, kappa_gradient)
            sharper = torch.minimum(kappa, kappa_gradient)
            solution = solver.solve(data, [smoother, sharper])
        x = solution.q_next[-1]
        x_gradient = solution.q_next[0]
        if kappa_gradient is not None:
            is_sharper = (kappa_gradient < kappa)[:, None]
            x, x_gradient = (
                torch.where(is_sharper, x_gradient, x),
                torch.where(is_sharper, x, x_gradient),
            )
        q, v = outputs(solver.reference, data, x)
        return (
            q.clone(),
            v,
            x_gradient.clone(),
            solution.status,
            solution.iterations,
            solution.residual,
            solution.restarts,
            solution.kappa_error,
            solution.min_gap,
            solution.impulses,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the adjoint needs: the inputs and the solution of the gradient."""
        solver, kappa, kappa_gradient, *values = inputs
        ctx.solver = solver
        kept = kappa if kappa_gradient is None else kappa_gradient
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(output[0], output[2], output[3], kept, *values)
        ctx.save_for_forward(output[0], output[2], output[3], kept, *values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Cotangents of the inputs by one adjoint solve; zero for failed items."""
        q, x, status, kappa, *inputs = ctx.saved_tensors
        tree = ctx.solver.reference.mechanism.tree
        gq = transport_cotangent(tree, q, x, cotangents[0]) + cotangents[2]
        gv = cotangents[1]
        good = (status == Status.CONVERGED)[:, None]
        gq = torch.where(good, gq, torch.zeros_like(gq))
        gv = torch.where(good, gv, torch.zeros_like(gv))
        result = _pull_back(
            ctx.solver, x, kappa, gq, gv, inputs, with_numbers=ctx.needs_input_grad[-1]
        )
        clean = [
            torch.where(good if g.dim() == 2 else good[:, 0], g, torch.zeros_like(g))
            for g in result
        ]
        return (None, None, None, *clean)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Directional derivative, from the rows of the Jacobian; zero for failed items."""
        q, x, status, kappa, *inputs = ctx.saved_tensors
        batch, nq = x.shape
        nv = inputs[1].shape[1]
        rows = nq + nv
        identity = torch.eye(rows, dtype=x.dtype, device=x.device)
        gq = identity[:, None, :nq].expand(rows, batch, nq).reshape(-1, nq)
        gv = identity[:, None, nq:].expand(rows, batch, nv).reshape(-1, nv)
        repeated = _flatten_batch([q, x, kappa, *inputs], [None] * (3 + len(inputs)), rows)
        tree = ctx.solver.reference.mechanism.tree
        result = _pull_back(
            ctx.solver,
            repeated[1],
            repeated[2],
            transport_cotangent(tree, repeated[0], repeated[1], gq),
            gv,
            repeated[3:],
            with_numbers=tangents[-1] is not None,
        )
        total = torch.zeros(rows, batch, dtype=x.dtype, device=x.device)
        for row, tangent in zip(result, tangents[3:], strict=True):
            if tangent is not None:
                product = row.reshape(rows, batch, -1) * tangent.reshape(batch, -1)
                total = total + product.sum(-1)
        total = torch.where(status == Status.CONVERGED, total, torch.zeros_like(total))
        moved_q, moved_v = total[:nq].T, total[nq:].T
        return (moved_q, moved_v, moved_q, *([None] * _REPORTED))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Treat the mapped dimension as more batch."""
        merged = _flatten_batch(args, in_dims, info.batch_size)
        result = _Step.apply(*merged)  # type: ignore[no-untyped-call]
        split = tuple(y.reshape(info.batch_size, -1, *y.shape[1:]) for y in result)
        return split, (0,) * len(split)


def _pull_back(
    solver: StepSolver,
    x: Tensor,
    kappa: Tensor,
    gq: Tensor,
    gv: Tensor,
    inputs: Sequence[Tensor],
    *,
    with_numbers: bool,
) -> Sequence[Tensor]:
    if isinstance(solver, ReferenceSolver) and not is_transformed(x, gq, gv, *inputs):
        result = solver.adjoint(_as_data(inputs), x, kappa, gq, gv)
        return [getattr(result, field.name) for field in fields(StepData)]
    return list(_Adjoint.apply(solver, with_numbers, x, kappa, gq, gv, *inputs))  # type: ignore[no-untyped-call]


def single_step(
    solver: StepSolver, data: StepData, kappa: Tensor, kappa_gradient: Tensor | None
) -> StepResult:
    """Solve one step; differentiable with respect to every tensor in ``data``.

    Args:
        solver: Backend.
        data: Inputs, batch first.
        kappa: Central-path parameter of the next state (B,).
        kappa_gradient: That of the gradient (B,); None if no gradient is wanted or it is the same.
    """
    values = [getattr(data, field.name) for field in fields(StepData)]
    q, v, _, *reported = _Step.apply(solver, kappa, kappa_gradient, *values)  # type: ignore[no-untyped-call]
    return StepResult(q, v, *reported)


def laddered_step(
    solver: StepSolver,
    data: StepData,
    kappa: Tensor,
    kappa_gradient: Tensor | None,
    max_substeps: int,
) -> tuple[StepResult, Tensor, Tensor]:
    """A step whose failed items are taken again in 2, then 4, 8, ... parts.

    Returns:
        The result; the number of parts of each item (B,); the length of its last part (B,). An
        item that was cut differentiates through all its parts.
    """
    result = single_step(solver, data, kappa, kappa_gradient)
    parts = torch.ones_like(result.status)
    finite = torch.isfinite(data.q).all(-1) & torch.isfinite(data.v).all(-1)
    finite = finite & torch.isfinite(data.force).all(-1)
    count = 2
    while count <= max_substeps:
        failed = ((result.status != Status.CONVERGED) & finite).nonzero()[:, 0]
        if failed.numel() == 0:
            break
        cut = _substeps(solver, data, kappa, kappa_gradient, failed, count)
        is_last = 2 * count > max_substeps
        better = (cut.status == Status.CONVERGED) | is_last
        chosen = failed[better]
        spent = _put(result.iterations, failed, result.iterations[failed] + cut.iterations)
        merged = {
            f.name: _put(getattr(result, f.name), chosen, getattr(cut, f.name)[better])
            for f in fields(StepResult)
        }
        result = StepResult(**merged | {"iterations": spent})
        parts = _put(parts, chosen, torch.full_like(chosen, count))
        count *= 2
    return result, parts, data.timestep / parts


def _put(target: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return target.index_put((index,), values)


def _substeps(
    solver: StepSolver,
    data: StepData,
    kappa: Tensor,
    kappa_gradient: Tensor | None,
    items: Tensor,
    count: int,
) -> StepResult:
    """The steps of ``items`` in ``count`` equal parts; the worst status and gap of all parts."""
    chosen = [getattr(data, f.name)[items] for f in fields(StepData)]
    q, v, force, past, timestep, numbers = chosen
    part = timestep / count
    # kappa is proportional to the time step.
    sharp = kappa[items] / count
    smooth = None if kappa_gradient is None else kappa_gradient[items] / count
    history: list[StepResult] = []
    for _ in range(count):
        inputs = StepData(q, v, force, past, part, numbers)
        history.append(single_step(solver, inputs, sharp, smooth))
        q, v, past = history[-1].q, history[-1].v, part

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(r, name) for r in history])

    last = history[-1]
    return StepResult(
        q=last.q,
        v=last.v,
        status=stacked("status").amax(0),
        iterations=stacked("iterations").sum(0),
        residual=stacked("residual").amax(0),
        restarts=stacked("restarts").sum(0),
        kappa_error=stacked("kappa_error").amax(0),
        min_gap=stacked("min_gap").amin(0),
        impulses=stacked("impulses").sum(0),
    )
