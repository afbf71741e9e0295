"""Steps as a differentiable function of tensors, for either solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from physim.dynamics._adjoint import transport_cotangent
from physim.dynamics._advance import Advance, Smoothing, StepSolver, cut
from physim.dynamics._assembly import StepData
from physim.dynamics._reference import ReferenceSolver
from physim.dynamics._transforms import is_transformed, is_wrapped
from solvers.core import Status

_NAMES = StepData.__slots__


def _flatten_batch(values: Sequence[Any], in_dims: Sequence[int | None], size: int) -> list[Any]:
    """Merge a mapped dimension into the batch: (N, B, ...) to (N B, ...)."""
    merged = []
    for value, dim in zip(values, in_dims, strict=True):
        if not isinstance(value, Tensor):
            merged.append(value)
            continue
        full = value.movedim(dim, 0) if dim is not None else value.expand(size, *value.shape)
        merged.append(full.reshape(size * full.shape[1], *full.shape[2:]))
    return merged


def _split_batch(values: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
    """Undo `_flatten_batch`: (N B, ...) to (N, B, ...)."""
    return tuple(y.reshape(size, y.shape[0] // size, *y.shape[1:]) for y in values)


class _Adjoint(torch.autograd.Function):
    """Vector-Jacobian product of a step by a compiled adjoint: first derivatives only."""

    @staticmethod
    def forward(
        solver: StepSolver,
        with_numbers: bool,
        kappa: float,
        q_next: Tensor,
        x: Tensor,
        impulses: Tensor,
        gq: Tensor,
        gv: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """Cotangents of the inputs."""
        result = solver.adjoint(
            StepData(*inputs), q_next, x, impulses, kappa, gq, gv, with_numbers=with_numbers
        )
        return tuple(getattr(result, name) for name in _NAMES)

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
        split = _split_batch(result, info.batch_size)
        return split, (0,) * len(split)


@dataclass(frozen=True, slots=True)
class _Law:
    """What a step does besides mapping tensors."""

    solver: StepSolver
    smoothing: Smoothing
    most_parts: int

    @property
    def kappa(self) -> float:
        """Smoothing of the gradient."""
        return self.smoothing.followed


class _Step(torch.autograd.Function):
    """A step; its derivative is that of the solution at the gradient's smoothing."""

    @staticmethod
    def forward(law: _Law, warm: Tensor | None, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Next configuration and velocity, the solution of the gradient, impulses, report."""
        done = law.solver.advance(
            StepData(*inputs), law.smoothing, impulses=warm, most_parts=law.most_parts
        )
        soft = done.q if done.soft is None else done.soft
        return done.q, done.v, soft.clone(), done.impulses, done.report

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the adjoint needs: the inputs and the solution of the gradient."""
        ctx.law, _, *values = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(*output, *values)
        ctx.save_for_forward(*output, *values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Cotangents of the inputs by one adjoint solve; zero for failed items."""
        saved = ctx.saved_tensors
        result = _pull_back(
            ctx.law, saved[:5], saved[5:], *cotangents[:3], with_numbers=ctx.needs_input_grad[-1]
        )
        return (None, None, *result)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Directional derivative, from the rows of the Jacobian; zero for failed items."""
        saved = ctx.saved_tensors
        x = saved[0]
        batch, nq = x.shape
        nv = saved[1].shape[1]
        rows = nq + nv
        identity = torch.eye(rows, dtype=x.dtype, device=x.device)
        gq = identity[:, None, :nq].expand(rows, batch, nq).reshape(-1, nq)
        gv = identity[:, None, nq:].expand(rows, batch, nv).reshape(-1, nv)
        repeated = _flatten_batch(saved, [None] * len(saved), rows)
        result = _pull_back(
            ctx.law, repeated[:5], repeated[5:], gq, gv, None, with_numbers=tangents[-1] is not None
        )
        total = torch.zeros(rows, batch, dtype=x.dtype, device=x.device)
        for row, tangent in zip(result, tangents[2:], strict=True):
            if tangent is not None:
                product = row.reshape(rows, *tangent.shape) * tangent
                total = total + (product.sum(-1) if product.dim() > 2 else product)
        return total[:nq].T, total[nq:].T, total[:nq].T, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Treat the mapped dimension as more batch."""
        merged = _flatten_batch(args, in_dims, info.batch_size)
        result = _Step.apply(*merged)  # type: ignore[no-untyped-call]
        split = _split_batch(result, info.batch_size)
        return split, (0,) * len(split)


class _PlainStep(torch.autograd.Function):
    """`_Step` for reverse mode on ordinary tensors by a compiled adjoint."""

    @staticmethod
    def forward(
        ctx: Any, law: _Law, done: Advance, inputs: Sequence[Tensor], *watched: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Next configuration and velocity of a step that was taken.

        Args:
            ctx: Kept for backward.
            law: What the step does besides mapping tensors.
            done: The step.
            inputs: The tensors of `StepData`.
            watched: Those among them that want a gradient.
        """
        soft = done.q if done.soft is None else done.soft
        ctx.law, ctx.wants = law, [x.requires_grad for x in inputs]
        ctx.save_for_backward(done.q, done.v, soft, done.impulses, done.report, *inputs)
        return done.q, done.v

    @staticmethod
    def backward(ctx: Any, gq: Tensor, gv: Tensor) -> Any:
        """Cotangents of the inputs by one adjoint solve; zero for failed items."""
        saved = ctx.saved_tensors
        result = _pull_back(ctx.law, saved[:5], saved[5:], gq, gv, None, with_numbers=ctx.wants[-1])
        wanted = [g for g, wants in zip(result, ctx.wants, strict=True) if wants]
        return (None, None, None, *wanted)


def _pull_back(
    law: _Law,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    gq: Tensor,
    gv: Tensor,
    g_soft: Tensor | None,
    *,
    with_numbers: bool,
) -> list[Tensor]:
    """Cotangents of a step's inputs; zero for failed items.

    Args:
        law: The step's constants.
        outputs: What `_Step.forward` gave.
        inputs: The tensors of `StepData`.
        gq: Cotangent of the next configuration (B, nq).
        gv: Cotangent of the next velocity (B, nv).
        g_soft: Cotangent of the solution of the gradient (B, nq), from a derivative of this one.
        with_numbers: Whether cotangents of the numbers are wanted.
    """
    q, v, soft, impulses, report = outputs
    state = Advance(q=q, v=v, report=report, impulses=impulses)
    is_ordinary = not is_transformed(report, soft, gq, gv, *inputs)
    is_good = is_ordinary and state.totals() == (0.0, q.shape[0], q.shape[0])
    converged = whole = direct = torch.empty(0)
    if not is_good:
        converged = state.status() == Status.CONVERGED
        whole = state.column("parts") < 1.5
        direct = converged & whole & (state.column("gradient_solved") > 0.5)

    def gated(values: Sequence[Tensor]) -> list[Tensor]:
        """Zero where an item has no derivative of its own, whatever stood there."""
        if is_good:
            return list(values)
        return [
            torch.where(direct if g.dim() == 1 else direct[:, None], g, torch.zeros_like(g))
            for g in values
        ]

    if g_soft is not None:
        gq = gq + transport_cotangent(law.solver.reference.mechanism.tree, soft, q, g_soft)
    solution, weights = (q, soft, impulses), gated([gq, gv])
    is_reference = isinstance(law.solver, ReferenceSolver)
    if is_ordinary and (is_reference or not torch.is_grad_enabled()):
        data = StepData(*inputs)
        pulled = law.solver.adjoint(data, *solution, law.kappa, *weights, with_numbers=with_numbers)
        result = [getattr(pulled, name) for name in _NAMES]
    else:
        result = list(
            _Adjoint.apply(  # type: ignore[no-untyped-call]
                law.solver, with_numbers, law.kappa, *solution, *weights, *inputs
            )
        )
    # Cotangents of numbers that nobody wants are one zero, repeated.
    wanted = len(result) if with_numbers else len(result) - 1
    result[:wanted] = gated(result[:wanted])
    if is_good or not is_ordinary or law.most_parts == 1:
        return result
    items = (converged & ~whole).nonzero()[:, 0]
    counts = state.column("parts")[items]
    for count in counts.unique().tolist():
        chosen = items[counts == count]
        chain = _pull_back_parts(
            law,
            cut(StepData(*inputs), chosen),
            round(count),
            gq[chosen],
            gv[chosen],
            with_numbers=with_numbers,
        )
        result[:wanted] = [
            rows.index_put((chosen,), g)
            for rows, g in zip(result[:wanted], chain[:wanted], strict=True)
        ]
    return result


def _pull_back_parts(
    law: _Law, data: StepData, count: int, gq: Tensor, gv: Tensor, *, with_numbers: bool
) -> tuple[Tensor, ...]:
    """Cotangents of a step that was taken in parts, through all of them."""
    one = _Law(law.solver, law.smoothing.share(count), 1)
    if torch.is_grad_enabled():
        raise RuntimeError(
            "second derivatives through a step that was taken in parts are not available; "
            "use a smaller timestep"
        )
    with torch.enable_grad():
        values = [getattr(data, name).detach() for name in _NAMES]
        for value in values if with_numbers else values[:-1]:
            value.requires_grad_()
        q, v, control, force, past, timestep, numbers = values
        part, warm = timestep / count, None
        for _ in range(count):
            inputs = (q, v, control, force, past, part, numbers)
            done = _taken(one, warm, inputs)
            q, v, warm, past = done.q, done.v, done.impulses, part
        total = (q * gq).sum() + (v * gv).sum()
        leaves = [value for value in values if value.requires_grad]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return tuple(
        torch.zeros_like(y) if g is None else g for y, g in zip(leaves, gradients, strict=True)
    )


def differentiable_step(
    solver: StepSolver,
    data: StepData,
    smoothing: Smoothing,
    *,
    impulses: Tensor | None,
    most_parts: int,
) -> Advance:
    """Take one step; q and v are differentiable with respect to every tensor in ``data``.

    Args:
        solver: Backend.
        data: Inputs, batch first.
        smoothing: That of the state and of the gradient.
        impulses: Impulses of the step before, a start for Newton's method.
        most_parts: Largest number of parts into which a failing step is cut. An item that was cut
            differentiates through all its parts.

    Returns:
        The result without a time axis.
    """
    values = [getattr(data, name) for name in _NAMES]
    return _taken(_Law(solver, smoothing, most_parts), impulses, values)


def _taken(law: _Law, warm: Tensor | None, inputs: Sequence[Tensor]) -> Advance:
    if isinstance(law.solver, ReferenceSolver) or is_wrapped(*inputs):
        q, v, _, held, report = _Step.apply(law, warm, *inputs)  # type: ignore[no-untyped-call]
        return Advance(q=q, v=v, report=report, impulses=held)
    done = law.solver.advance(
        StepData(*inputs), law.smoothing, impulses=warm, most_parts=law.most_parts
    )
    watched = [x for x in inputs if x.requires_grad]
    q, v = _PlainStep.apply(law, done, inputs, *watched)  # type: ignore[no-untyped-call]
    return Advance(q=q, v=v, report=done.report, impulses=done.impulses)
