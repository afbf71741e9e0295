"""The compiled step: one environment a SIMD lane, one native call for a batch and many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import REPORT, Advance, Smoothing
from physim.dynamics._assembly import StepData
from physim.dynamics._kernel_body import TEAM_MOST, adjoint_body, path_part, step_body
from physim.dynamics._reference import ReferenceSolver
from solvers.kernels import (
    Kernel,
    aligned_empty,
    block_count,
    build_kernel,
    lane_count,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from physim.dynamics._mechanism import Mechanism
    from physim.dynamics._settings import SolverSettings

_ARGUMENTS = (
    ("q_in", "double*"),
    ("v_in", "double*"),
    ("interval_in", "double*"),
    ("timestep_in", "double*"),
    ("control_in", "double*"),
    ("control_stride", "int"),
    ("external_in", "double*"),
    ("has_external", "int"),
    ("numbers_in", "V*"),
    ("number_stride", "int"),
    ("is_smooth", "int"),
    ("state_kappa", "double"),
    ("path_rate", "double"),
    ("want_soft", "int"),
    ("soft_kappa", "double"),
    ("steps_count", "int"),
    ("most_parts", "int"),
    ("batch", "int"),
    ("team", "int"),
    ("q_out", "double*"),
    ("v_out", "double*"),
    ("interval_out", "double*"),
    ("report_out", "double*"),
    ("impulses_out", "double*"),
    ("soft_out", "double*"),
)

_ADJOINT_ARGUMENTS = (
    ("q_in", "V*"),
    ("v_in", "V*"),
    ("control_in", "V*"),
    ("external_in", "V*"),
    ("steps_in", "V*"),
    ("numbers_in", "V*"),
    ("number_stride", "int"),
    ("x_in", "V*"),
    ("impulses_in", "V*"),
    ("kappa_in", "V*"),
    ("gq_in", "V*"),
    ("gv_in", "V*"),
    ("bar_q_out", "V*"),
    ("bar_v_out", "V*"),
    ("bar_control_out", "V*"),
    ("bar_external_out", "V*"),
    ("bar_steps_out", "V*"),
    ("bar_num_out", "V*"),
)


class KernelSolver:
    """Takes steps of one mechanism with a compiled kernel.

    Zeros of the model's own numbers are structure and cost nothing; numbers that break this
    pattern use a second kernel in which every number is read.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings.
        numbers: The model's own flat numbers.
        q: The model's initial configuration (nq,).
        timestep: Usual length of a step [s].
        threads: Threads over which a batch is split.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        settings: SolverSettings,
        numbers: Tensor,
        q: Tensor,
        timestep: float,
        *,
        threads: int = 1,
    ) -> None:
        self.mechanism = mechanism
        self.settings = settings
        self.lanes = lane_count()
        self.threads = threads
        self.reference = ReferenceSolver(mechanism, settings, q, numbers, timestep)
        self._own = numbers
        self._packed: Tensor | None = None
        self._zero = (numbers == 0.0).nonzero()[:, 0]
        self._kernels: dict[bool, Kernel] = {}
        self._adjoints: dict[tuple[bool, bool, bool], Kernel] = {}
        self._path_rate = mechanism.scales.kappa(settings.rescue_smoothing, 1.0)

    def kernel(self, *, is_dense: bool = False) -> Kernel:
        """The compiled step, built at first use."""
        if is_dense not in self._kernels:
            zeros = frozenset(() if is_dense else self._zero.tolist())
            body = step_body(self.mechanism, self.settings, zeros, self.reference.weights)
            path = path_part(self.mechanism, self.settings, zeros)
            self._kernels[is_dense] = build_kernel(
                "steps", body, _ARGUMENTS, lanes=self.lanes, parts=[path]
            )
        return self._kernels[is_dense]

    def _breaks_pattern(self, numbers: Tensor) -> bool:
        """Whether a number that is zero by structure is not zero."""
        if numbers.data_ptr() == self._own.data_ptr():
            return False
        rows = numbers[:1] if numbers.stride(0) == 0 else numbers
        return bool(rows.index_select(-1, self._zero).count_nonzero())

    def _pack_numbers(self, numbers: Tensor) -> tuple[Tensor, int]:
        """Numbers in lanes and the stride between blocks: 0 if all items share one vector."""
        size = numbers.shape[-1]
        if numbers.data_ptr() != self._own.data_ptr():
            if numbers.stride(0) != 0:
                return pack(numbers, self.lanes), size
            return pack(numbers[:1].expand(self.lanes, size), self.lanes), 0
        if self._packed is None:
            self._packed = pack(self._own.expand(self.lanes, size), self.lanes)
        return self._packed, 0

    @torch.no_grad()
    def advance(
        self,
        data: StepData,
        smoothing: Smoothing,
        *,
        controls: Tensor | None = None,
        impulses: Tensor | None = None,
        most_parts: int = 1,
    ) -> Advance:
        """Take steps of a batch in one native call (see `StepSolver.advance`)."""
        tree, batch = self.mechanism.tree, data.q.shape[0]
        steps = 1 if controls is None else controls.shape[0]
        control = data.control if controls is None else controls
        q, v = (data.q.new_empty(steps, batch, n) for n in (tree.nq, tree.nv))
        interval = data.q.new_empty(steps, batch)
        report = data.q.new_empty(steps, batch, len(REPORT))
        width = self.mechanism.impulse_count
        held = data.q.new_zeros(batch, width) if impulses is None else impulses.clone()
        want_soft = smoothing.gradient is not None
        soft = torch.empty_like(q) if want_soft else q
        numbers, stride = self._pack_numbers(data.numbers)
        has_external = bool(data.force.count_nonzero())
        blocks = block_count(batch, self.lanes)
        team = min(TEAM_MOST, -(-blocks // self.threads))
        self.kernel(is_dense=self._breaks_pattern(data.numbers)).launch_threads(
            -(-blocks // team),
            self.threads,
            data.q.contiguous(),
            data.v.contiguous(),
            data.past_timestep.contiguous(),
            data.timestep.contiguous(),
            control.contiguous(),
            batch * control.shape[-1],
            data.force.contiguous(),
            int(has_external),
            numbers,
            stride,
            int(smoothing.state > 0.0),
            smoothing.state,
            self._path_rate,
            int(want_soft),
            smoothing.gradient or 0.0,
            steps,
            most_parts,
            batch,
            team,
            q,
            v,
            interval,
            report,
            held,
            soft,
        )
        return Advance(q=q, v=v, report=report, impulses=held, soft=soft if want_soft else None)

    def adjoint_kernel(self, *, with_numbers: bool, is_dense: bool, is_exact: bool) -> Kernel:
        """The compiled adjoint, built at first use."""
        key = (with_numbers, is_dense, is_exact)
        if key not in self._adjoints:
            zeros = () if is_dense else self._zero.tolist()
            body = adjoint_body(
                self.mechanism,
                self.settings,
                frozenset(zeros),
                self.reference.weights,
                with_numbers=with_numbers,
                is_exact=is_exact,
            )
            self._adjoints[key] = build_kernel(
                "adjoint", body, _ADJOINT_ARGUMENTS, lanes=self.lanes
            )
        return self._adjoints[key]

    @torch.no_grad()
    def adjoint(
        self,
        data: StepData,
        x: Tensor,
        impulses: Tensor,
        kappa: float,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs (see `StepSolver.adjoint`)."""
        batch, lanes, tree = data.q.shape[0], self.lanes, self.mechanism.tree
        blocks, size = block_count(batch, lanes), self.mechanism.layout.size
        shared, stride = self._pack_numbers(data.numbers)
        is_dense = with_numbers or self._breaks_pattern(data.numbers)
        nu = len(self.mechanism.actuators)
        widths = (tree.nq, tree.nv, nu, tree.nv, 2, size if with_numbers else 1)
        bars = [aligned_empty(blocks, width, lanes) for width in widths]
        kernel = self.adjoint_kernel(
            with_numbers=with_numbers, is_dense=is_dense, is_exact=kappa == 0.0
        )
        kernel.launch_threads(
            blocks,
            self.threads,
            pack(data.q, lanes),
            pack(data.v, lanes),
            pack(data.control, lanes),
            pack(data.force, lanes),
            pack(torch.stack([data.past_timestep, data.timestep], dim=-1), lanes),
            shared,
            stride,
            pack(x, lanes),
            pack(impulses, lanes),
            pack(torch.full_like(data.timestep, kappa), lanes),
            pack(cotangent_q, lanes),
            pack(cotangent_v, lanes),
            *bars,
        )
        q, v, control, force, steps, numbers = (unpack(bar, batch) for bar in bars)
        if not with_numbers:
            numbers = torch.zeros(1, dtype=q.dtype).expand(batch, size)
        return StepData(q, v, control, force, steps[:, 0], steps[:, 1], numbers)
