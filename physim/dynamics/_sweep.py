"""The adjoint of many steps of a batch in one native call, from the last step to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._assembly import StepData
from physim.dynamics._kernel_body import adjoint_body, template
from physim.dynamics._layers import NO_POLICY, LayerTable
from physim.dynamics._solved_steps import Steps
from solvers.kernels import (
    Kernel,
    aligned_empty,
    block_count,
    build_kernel,
    unpack,
)

if TYPE_CHECKING:
    from physim.dynamics._kernel import KernelSolver

SWEEPS_MOST = 32
"""Teams into which a sweep splits a batch: each adds up gradients of shared weights by itself."""

_ARGUMENTS = (
    ("q_in", "double*"),
    ("v_in", "double*"),
    ("interval_in", "double*"),
    ("timestep_in", "double*"),
    ("control_in", "double*"),
    ("external_in", "double*"),
    ("numbers_in", "V*"),
    ("number_stride", "int"),
    ("soft_in", "double*"),
    ("impulses_in", "double*"),
    ("outcome_in", "double*"),
    ("gradient_kappa", "double"),
    ("has_parts", "int"),
    ("place_in", "int*"),
    ("part_q_in", "double*"),
    ("part_v_in", "double*"),
    ("part_after_in", "double*"),
    ("part_soft_in", "double*"),
    ("part_impulses_in", "double*"),
    ("part_solved_in", "double*"),
    ("steps_count", "int"),
    ("batch", "int"),
    ("team", "int"),
    ("sweep_blocks", "int"),
    ("own_blocks", "int"),
    ("policy_in", "int*"),
    ("bounds_in", "double*"),
    ("weights_in", "double*"),
    ("reads", "int"),
    ("gq_in", "double*"),
    ("gv_in", "double*"),
    ("g_interval_in", "double*"),
    ("g_control_in", "double*"),
    ("want_states", "int"),
    ("bar_q_out", "double*"),
    ("bar_v_out", "double*"),
    ("bar_interval_out", "double*"),
    ("bar_timestep_out", "double*"),
    ("bar_external_out", "double*"),
    ("bar_num_out", "V*"),
    ("bar_control_out", "double*"),
    ("bar_weights_out", "double*"),
    ("state_q_out", "double*"),
    ("state_v_out", "double*"),
)


@dataclass(slots=True, kw_only=True)
class Cotangents:
    """Derivatives of a loss that a sweep carries and adds up.

    Attributes:
        q: Of the earliest configuration so far (B, nq), without what the loss reads of it itself.
        v: Of the velocity there (B, nv).
        interval: Of the interval that ended there (B,).
        timestep: Of the time step (B,).
        force: Of the external force (B, nv).
        control: Of the controls (T, B, nu).
        numbers: Of the flat numbers, in lanes (blocks, n, lanes).
        weights: Of a policy's weights: ``(T or 1, sweeps, P)``, or in lanes for weights of every
            environment.
        states: Of all states (T + 1, B, nq) and (T + 1, B, nv), if asked for.
    """

    q: Tensor
    v: Tensor
    interval: Tensor
    timestep: Tensor
    force: Tensor
    control: Tensor
    numbers: Tensor
    weights: Tensor
    states: tuple[Tensor, ...] | None = None


_PULL_BACK_POLICY = "pull_back_policy(q0, v0, bar_control, real, step, at, bar_q, bar_v);"


def sweep_body(
    solver: KernelSolver, *, with_numbers: bool, is_dense: bool, is_exact: bool, has_policy: bool
) -> str:
    """C++ text of a sweep over steps."""
    zeros = frozenset(() if is_dense else solver.zeros)
    mechanism, settings, weights = solver.mechanism, solver.settings, solver.reference.weights
    loop = template("adjoint_sweep.cpp")
    loop = loop.replace("@PULL_BACK_POLICY@", _PULL_BACK_POLICY if has_policy else "")
    files = ("policy.cpp", "policy_adjoint.cpp") if has_policy else ()
    frame = "".join(template(name) for name in files) + loop
    return adjoint_body(
        mechanism,
        settings,
        zeros,
        weights,
        frame=frame,
        with_numbers=with_numbers,
        is_exact=is_exact,
    )


@dataclass(slots=True)
class Sweeper:
    """Pulls cotangents back through steps of one mechanism.

    Attributes:
        solver: The compiled step.
    """

    solver: KernelSolver
    _kernels: dict[tuple[bool, ...], Kernel] = field(default_factory=dict)

    def _kernel(
        self, *, with_numbers: bool, is_dense: bool, is_exact: bool, has_policy: bool
    ) -> Kernel:
        key = (with_numbers, is_dense, is_exact, has_policy)
        if key not in self._kernels:
            body = sweep_body(
                self.solver,
                with_numbers=with_numbers,
                is_dense=is_dense,
                is_exact=is_exact,
                has_policy=has_policy,
            )
            lanes = self.solver.lanes
            self._kernels[key] = build_kernel("sweep", body, _ARGUMENTS, lanes=lanes)
        return self._kernels[key]

    def team(self, batch: int) -> int:
        """Blocks of lanes that a call of the kernel's body goes through."""
        return -(-block_count(batch, self.solver.lanes) // SWEEPS_MOST)

    def zeros(
        self, steps: int, batch: int, table: LayerTable | None, *, with_numbers: bool, states: bool
    ) -> Cotangents:
        """Nothing yet, for a sweep over ``steps`` steps."""
        tree, lanes = self.solver.mechanism.tree, self.solver.lanes
        nu, size = len(self.solver.mechanism.actuators), self.solver.mechanism.layout.size
        blocks, sizes = block_count(batch, lanes), (tree.nq, tree.nv)

        def rows(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        weights = rows(1)
        if table is not None:
            span, items, numbers_each = table.weights.shape
            teams = -(-blocks // self.team(batch))
            shape = (teams, numbers_each) if items == 1 else (blocks, numbers_each, lanes)
            weights = aligned_empty(span, *shape).zero_()
        numbers = aligned_empty(blocks, size, lanes).zero_() if with_numbers else rows(1, 1, lanes)
        return Cotangents(
            q=rows(batch, tree.nq),
            v=rows(batch, tree.nv),
            interval=rows(batch),
            timestep=rows(batch),
            force=rows(batch, tree.nv),
            control=torch.empty(steps, batch, nu, dtype=torch.float64),
            numbers=numbers if with_numbers else aligned_empty(1, 1, lanes),
            weights=weights,
            states=tuple(rows(steps + 1, batch, n) for n in sizes) if states else None,
        )

    @torch.no_grad()
    def sweep(
        self,
        data: StepData,
        steps: Steps,
        kappa: float,
        direct: Sequence[Tensor | None],
        bars: Cotangents,
        first: int,
        *,
        table: LayerTable | None,
        with_numbers: bool,
    ) -> None:
        """Pull cotangents back from the last of some steps to the state before the first.

        Args:
            data: What holds for all steps: external force, time step and numbers.
            steps: The solved steps.
            kappa: Central-path parameter of the gradient of a whole step [J].
            direct: What the loss reads itself of states, velocities, intervals (T + 1, B, ...) and
                controls (T, B, nu) of these steps; None where it reads nothing.
            bars: Carried and added to; holds all steps of the rollout.
            first: Place of these steps among those of ``bars``.
            table: Policy that gave the controls; its weights are those of these steps.
            with_numbers: Whether cotangents of the numbers are wanted.
        """
        solver, (count, batch) = self.solver, steps.outcome.shape[:2]
        blocks, team = block_count(batch, solver.lanes), self.team(batch)
        numbers, stride = solver.pack_numbers(data.numbers)
        is_dense = with_numbers or solver.breaks_pattern(data.numbers)
        law, nothing = table or NO_POLICY, data.timestep.new_zeros(1)
        parts = steps.parts
        rows: Sequence[Tensor] = 6 * (nothing,)
        if parts is not None:
            rows = (parts.q, parts.v, parts.after, parts.soft, parts.impulses, parts.solved)
        weights = bars.weights[first:] if len(bars.weights) > 1 else bars.weights
        states = (
            (nothing, nothing) if bars.states is None else tuple(y[first:] for y in bars.states)
        )
        kernel = self._kernel(
            with_numbers=with_numbers,
            is_dense=is_dense,
            is_exact=kappa == 0.0,
            has_policy=table is not None,
        )
        kernel.launch_threads(
            -(-blocks // team),
            solver.threads,
            *(y.contiguous() for y in (steps.q, steps.v, steps.interval, data.timestep)),
            steps.control.contiguous(),
            data.force.contiguous(),
            numbers,
            stride,
            steps.soft.contiguous(),
            nothing if steps.impulses is None else steps.impulses.contiguous(),
            steps.outcome.contiguous(),
            kappa,
            int(parts is not None),
            torch.zeros(1, dtype=torch.int32) if parts is None else parts.place,
            *rows,
            count,
            batch,
            team,
            -(-blocks // team),
            blocks,
            law.shape,
            law.bounds,
            law.weights,
            sum(2**k for k, y in enumerate(direct) if y is not None),
            *(nothing if y is None else y.contiguous() for y in direct),
            int(bars.states is not None),
            bars.q,
            bars.v,
            bars.interval,
            bars.timestep,
            bars.force,
            bars.numbers,
            bars.control[first:],
            weights,
            *states,
        )

    def number_gradient(
        self, bars: Cotangents, batch: int, size: int, *, with_numbers: bool
    ) -> Tensor:
        """Cotangent of the flat numbers (B, n), zero unless wanted."""
        if not with_numbers:
            return torch.zeros(1, dtype=torch.float64).expand(batch, size)
        return unpack(bars.numbers, batch)

    def weight_gradient(self, bars: Cotangents, flat: Tensor) -> Tensor:
        """Cotangent of a policy's flat numbers, of their shape (T or 1, B or 1, P)."""
        if flat.shape[1] == 1:
            return bars.weights.sum(1, keepdim=True)
        return torch.stack([unpack(step, flat.shape[1]) for step in bars.weights])
