"""The compiled step: one environment a SIMD lane, one native call for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from physim.dynamics._assembly import StepData
from physim.dynamics._kernel_body import REPORT, adjoint_body, step_body
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._reference import ReferenceSolver, StepSolution
from physim.dynamics._settings import SolverSettings
from solvers.core import Status
from solvers.kernels import (
    Kernel,
    aligned_empty,
    block_count,
    build_kernel,
    lane_count,
    pack,
    unpack,
)

_ARGUMENTS = (
    ("q_in", "V*"),
    ("v_in", "V*"),
    ("force_in", "V*"),
    ("steps_in", "V*"),
    ("numbers_in", "V*"),
    ("number_stride", "int"),
    ("kappa_in", "V*"),
    ("stages", "int"),
    ("x_out", "V*"),
    ("report_out", "V*"),
    ("impulse_out", "V*"),
)


_ADJOINT_ARGUMENTS = (
    *_ARGUMENTS[:6],
    ("x_in", "V*"),
    ("kappa_in", "V*"),
    ("gq_in", "V*"),
    ("gv_in", "V*"),
    ("bar_q_out", "V*"),
    ("bar_v_out", "V*"),
    ("bar_force_out", "V*"),
    ("bar_steps_out", "V*"),
    ("bar_num_out", "V*"),
)


class KernelSolver:
    """Solves steps of one mechanism with a compiled kernel.

    Zeros of the model's own numbers are structure and cost nothing; numbers that break this
    pattern use a second kernel in which every number is read.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings.
        numbers: The model's own flat numbers.
        threads: Threads over which a batch is split.
    """

    def __init__(
        self, mechanism: Mechanism, settings: SolverSettings, numbers: Tensor, *, threads: int = 1
    ) -> None:
        self.mechanism = mechanism
        self.settings = settings
        self.lanes = lane_count()
        self.threads = threads
        self.reference = ReferenceSolver(mechanism, settings)
        self._own = numbers
        self._packed: Tensor | None = None
        self._zero = (numbers == 0.0).nonzero()[:, 0]
        self._kernels: dict[bool, Kernel] = {}
        self._adjoints: dict[tuple[bool, bool], Kernel] = {}

    def kernel(self, *, is_dense: bool = False) -> Kernel:
        """The compiled step, built at first use."""
        if is_dense not in self._kernels:
            zeros = () if is_dense else self._zero.tolist()
            body = step_body(self.mechanism, self.settings, frozenset(zeros))
            self._kernels[is_dense] = build_kernel("step", body, _ARGUMENTS, lanes=self.lanes)
        return self._kernels[is_dense]

    def _breaks_pattern(self, numbers: Tensor) -> bool:
        """Whether a number that is zero by structure is not zero."""
        rows = numbers[:1] if numbers.stride(0) == 0 else numbers
        if rows.data_ptr() == self._own.data_ptr():
            return False
        return bool(rows.index_select(-1, self._zero).count_nonzero())

    def _pack_numbers(self, numbers: Tensor) -> tuple[Tensor, int]:
        """Numbers in lanes and the stride between blocks: 0 if all items share one vector."""
        size = numbers.shape[-1]
        if numbers.stride(0) != 0:
            return pack(numbers, self.lanes), size
        if numbers.data_ptr() != self._own.data_ptr():
            return pack(numbers[:1].expand(self.lanes, size), self.lanes), 0
        if self._packed is None:
            self._packed = pack(self._own.expand(self.lanes, size), self.lanes)
        return self._packed, 0

    @torch.no_grad()
    def solve(self, data: StepData, kappas: Sequence[Tensor]) -> StepSolution:
        """Solve one step at each of the decreasing parameters ``kappas``, each (B,)."""
        batch, lanes = data.q.shape[0], self.lanes
        blocks, stages = block_count(batch, lanes), len(kappas)
        shared, stride = self._pack_numbers(data.numbers)
        is_dense = self._breaks_pattern(data.numbers)
        count = max(self.mechanism.contact_count, 1)
        x = aligned_empty(blocks, stages * self.mechanism.tree.nq, lanes)
        report = aligned_empty(blocks, REPORT, lanes)
        impulse = aligned_empty(blocks, 3 * count, lanes)
        self.kernel(is_dense=is_dense).launch_threads(
            blocks,
            self.threads,
            pack(data.q, lanes),
            pack(data.v, lanes),
            pack(data.force, lanes),
            pack(torch.stack([data.past_timestep, data.timestep], dim=-1), lanes),
            shared,
            stride,
            pack(torch.stack(list(kappas), dim=-1), lanes),
            stages,
            x,
            report,
            impulse,
        )
        q_next = unpack(x, batch).reshape(batch, stages, -1).unbind(1)
        iterations, residual, path, fail, restarts, lowest, _ = unpack(report, batch).unbind(-1)
        status = torch.where(fail > 0.5, int(Status.MAX_ITERATIONS), int(Status.CONVERGED))
        finite = torch.isfinite(q_next[-1]).all(-1)
        contacts = unpack(impulse, batch).reshape(batch, count, 3)
        return StepSolution(
            q_next=list(q_next),
            iterations=iterations.to(torch.int64),
            residual=residual,
            status=torch.where(finite, status, int(Status.NON_FINITE)),
            restarts=restarts.to(torch.int64),
            kappa_error=path,
            min_gap=lowest,
            impulses=contacts[:, : self.mechanism.contact_count],
        )

    def adjoint_kernel(self, *, with_numbers: bool, is_dense: bool) -> Kernel:
        """The compiled adjoint, built at first use."""
        key = (with_numbers, is_dense)
        if key not in self._adjoints:
            zeros = () if is_dense else self._zero.tolist()
            body = adjoint_body(
                self.mechanism, self.settings, frozenset(zeros), with_numbers=with_numbers
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
        kappa: Tensor,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs; those of the numbers are zero unless wanted."""
        batch, lanes, tree = data.q.shape[0], self.lanes, self.mechanism.tree
        blocks, size = block_count(batch, lanes), self.mechanism.layout.size
        shared, stride = self._pack_numbers(data.numbers)
        is_dense = with_numbers or self._breaks_pattern(data.numbers)
        widths = (tree.nq, tree.nv, tree.nv, 2, size if with_numbers else 1)
        bars = [aligned_empty(blocks, width, lanes) for width in widths]
        self.adjoint_kernel(with_numbers=with_numbers, is_dense=is_dense).launch_threads(
            blocks,
            self.threads,
            pack(data.q, lanes),
            pack(data.v, lanes),
            pack(data.force, lanes),
            pack(torch.stack([data.past_timestep, data.timestep], dim=-1), lanes),
            shared,
            stride,
            pack(x, lanes),
            pack(kappa, lanes),
            pack(cotangent_q, lanes),
            pack(cotangent_v, lanes),
            *bars,
        )
        q, v, force, steps, numbers = (unpack(bar, batch) for bar in bars)
        if not with_numbers:
            numbers = torch.zeros(1, dtype=q.dtype).expand(batch, size)
        return StepData(q, v, force, steps[:, 0], steps[:, 1], numbers)
