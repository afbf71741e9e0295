"""The compiled step: one environment a SIMD lane, one native call for a batch and many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import REPORT, Advance, Smoothing
from physim.dynamics._assembly import StepData, is_untouched
from physim.dynamics._inputs import item_rows
from physim.dynamics._kernel_body import (
    TEAM_MOST,
    adjoint_body,
    jacobian_body,
    path_part,
    step_body,
)
from physim.dynamics._layers import NO_POLICY, LayerTable
from physim.dynamics._reference import ReferenceSolver
from physim.dynamics._sweep import Sweeper
from solvers.kernels import Kernel, block_count, build_kernel, lane_count, pack

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
    ("policy_in", "int*"),
    ("bounds_in", "double*"),
    ("weights_in", "double*"),
    ("impulse_stride", "int"),
    ("q_out", "double*"),
    ("v_out", "double*"),
    ("interval_out", "double*"),
    ("report_out", "double*"),
    ("impulses_out", "double*"),
    ("soft_out", "double*"),
)

_ADJOINT_ARGUMENTS = (
    ("q_in", "double*"),
    ("v_in", "double*"),
    ("control_in", "double*"),
    ("external_in", "double*"),
    ("interval_in", "double*"),
    ("timestep_in", "double*"),
    ("numbers_in", "V*"),
    ("number_stride", "int"),
    ("q_next_in", "double*"),
    ("x_in", "double*"),
    ("impulses_in", "double*"),
    ("kappa_in", "double"),
    ("batch", "int"),
    ("gq_in", "double*"),
    ("gv_in", "double*"),
    ("bar_q_out", "double*"),
    ("bar_v_out", "double*"),
    ("bar_control_out", "double*"),
    ("bar_external_out", "double*"),
    ("bar_interval_out", "double*"),
    ("bar_timestep_out", "double*"),
    ("bar_num_out", "double*"),
)


_JACOBIAN_ARGUMENTS = (
    *_ADJOINT_ARGUMENTS[:8],
    ("x_in", "double*"),
    ("impulses_in", "double*"),
    ("kappa_in", "double"),
    ("batch", "int"),
    ("a_out", "double*"),
    ("b_out", "double*"),
)


_KEPT_LAUNCHES = 4


@dataclass(frozen=True, slots=True)
class _Launch:
    """A launch of steps without the tensors that differ every time.

    Attributes:
        key: What it depends on.
        kernel: The kernel.
        blocks: Teams of blocks of lanes.
        values: Its arguments between the inputs and the outputs.
        interval: Room for the lengths of intervals (B,), which no single step reads.
    """

    key: tuple[int, Smoothing, int, int]
    kernel: Kernel
    blocks: int
    values: tuple[Tensor | float, ...]
    interval: Tensor


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
        self._own, self._address = numbers, numbers.data_ptr()
        self._packed: Tensor | None = None
        self._zero = (numbers == 0.0).nonzero()[:, 0]
        self.zeros: list[int] = self._zero.tolist()
        self.sweeper = Sweeper(self)
        self._kernels: dict[bool, Kernel] = {}
        self._adjoints: dict[tuple[bool, bool, bool], Kernel] = {}
        self._jacobians: dict[tuple[bool, bool], Kernel] = {}
        self._kept: tuple[_Launch, ...] = ()
        self._path_rate = mechanism.scales.kappa(settings.rescue_smoothing, 1.0)

    def kernel(self, *, is_dense: bool = False) -> Kernel:
        """The compiled step, built at first use."""
        if is_dense not in self._kernels:
            zeros = frozenset(() if is_dense else self.zeros)
            body = step_body(self.mechanism, self.settings, zeros, self.reference.weights)
            path = path_part(self.mechanism, self.settings, zeros)
            self._kernels[is_dense] = build_kernel(
                "steps", body, _ARGUMENTS, lanes=self.lanes, parts=[path]
            )
        return self._kernels[is_dense]

    def _is_own(self, numbers: Tensor) -> bool:
        """Whether all items have the model's own numbers."""
        return numbers.data_ptr() == self._address

    def breaks_pattern(self, numbers: Tensor) -> bool:
        """Whether a number that is zero by structure is not zero."""
        if self._is_own(numbers):
            return False
        rows = numbers[:1] if numbers.stride(0) == 0 else numbers
        return bool(rows.index_select(-1, self._zero).count_nonzero())

    def pack_numbers(self, numbers: Tensor) -> tuple[Tensor, int]:
        """Numbers in lanes and the stride between blocks: 0 if all items share one vector."""
        size = numbers.shape[-1]
        if not self._is_own(numbers):
            if numbers.stride(0) != 0:
                return pack(numbers, self.lanes), size
            return pack(numbers[:1].expand(self.lanes, size), self.lanes), 0
        if self._packed is None:
            self._packed = pack(self._own.expand(self.lanes, size), self.lanes)
        return self._packed, 0

    def advance(
        self,
        data: StepData,
        smoothing: Smoothing,
        *,
        controls: Tensor | None = None,
        impulses: Tensor | None = None,
        most_parts: int = 1,
        policy: LayerTable | None = None,
        keep_impulses: bool = False,
    ) -> Advance:
        """Take steps of a batch in one native call (see `StepSolver.advance`).

        Args:
            data: Inputs of the first step.
            smoothing: How exact contact is.
            controls: Controls of every step (T, B, nu); written by the policy if there is one.
            impulses: Impulses of the step before (B, w).
            most_parts: Largest number of parts into which a failing step is cut.
            policy: Layers that give the controls.
            keep_impulses: Whether the impulses of all steps are wanted.
        """
        q_in, v_in = data.q.contiguous(), data.v.contiguous()
        if controls is None:
            control, launch = data.control, self._launch(data, smoothing, 1, most_parts)
            q, v, interval = torch.empty_like(q_in), torch.empty_like(v_in), launch.interval
        else:
            control = controls
            launch = self._launch(data, smoothing, controls.shape[0], most_parts)
            interval = torch.empty(controls.shape[:2], dtype=torch.float64)
            q = interval.new_empty(*interval.shape, q_in.shape[1])
            v = interval.new_empty(*interval.shape, v_in.shape[1])
        report = torch.empty(*interval.shape, len(REPORT), dtype=torch.float64)
        batch, width = q_in.shape[0], self.mechanism.impulse_count
        steps = 1 if controls is None else controls.shape[0]
        held = report.new_zeros(1 + steps * keep_impulses, batch, width)
        if impulses is not None:
            held[0] = item_rows("impulses", impulses.detach(), width, batch)
        soft = None if smoothing.gradient is None else torch.empty_like(q)
        law = policy or NO_POLICY
        launch.kernel.launch_trusted(
            launch.blocks,
            self.threads,
            q_in,
            v_in,
            data.past_timestep.contiguous(),
            data.timestep.contiguous(),
            control.contiguous(),
            *launch.values,
            law.shape,
            law.bounds,
            law.weights,
            batch * width * keep_impulses,
            q,
            v,
            interval,
            report,
            held,
            q if soft is None else soft,
        )
        return Advance(
            q=q,
            v=v,
            report=report,
            impulses=held[0].clone() if keep_impulses else held[0],
            soft=soft,
            path=held[1:] if keep_impulses else None,
        )

    def _launch(self, data: StepData, smoothing: Smoothing, steps: int, most_parts: int) -> _Launch:
        """What of a launch may serve the next one: kept as long as nothing of it changes."""
        batch = data.q.shape[0]
        is_usual = self._is_own(data.numbers) and is_untouched(data.force)
        key = (batch, smoothing, steps, most_parts)
        if is_usual:
            for kept in self._kept:
                if kept.key == key:
                    return kept
        numbers, stride = self.pack_numbers(data.numbers)
        force = data.force.contiguous()
        blocks = block_count(batch, self.lanes)
        team = min(TEAM_MOST, -(-blocks // self.threads))
        launch = _Launch(
            key,
            self.kernel(is_dense=self.breaks_pattern(data.numbers)),
            -(-blocks // team),
            (
                batch * len(self.mechanism.actuators),
                force,
                int(not is_untouched(data.force) and bool(force.count_nonzero())),
                numbers,
                stride,
                int(smoothing.state > 0.0),
                smoothing.state,
                self._path_rate,
                int(smoothing.gradient is not None),
                smoothing.gradient or 0.0,
                steps,
                most_parts,
                batch,
                team,
            ),
            torch.empty(batch, dtype=torch.float64),
        )
        if is_usual:
            self._kept = (launch, *self._kept[: _KEPT_LAUNCHES - 1])
        return launch

    def _inputs(self, data: StepData) -> tuple[Tensor | int, ...]:
        """The first arguments of every derivative."""
        names = ("q", "v", "control", "force", "past_timestep", "timestep")
        rows = (getattr(data, name).contiguous() for name in names)
        return (*rows, *self.pack_numbers(data.numbers))

    def adjoint_kernel(self, *, with_numbers: bool, is_dense: bool, is_exact: bool) -> Kernel:
        """The compiled adjoint, built at first use."""
        key = (with_numbers, is_dense, is_exact)
        if key not in self._adjoints:
            zeros = () if is_dense else self.zeros
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
        q_next: Tensor,
        x: Tensor,
        impulses: Tensor,
        kappa: float,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs (see `StepSolver.adjoint`)."""
        batch, tree, double = data.q.shape[0], self.mechanism.tree, torch.float64
        size, nu = self.mechanism.layout.size, len(self.mechanism.actuators)
        is_dense = with_numbers or self.breaks_pattern(data.numbers)
        widths = (tree.nq, tree.nv, nu, tree.nv)
        q, v, control, force = (torch.empty(batch, width, dtype=double) for width in widths)
        past, now = torch.empty(batch, dtype=double), torch.empty(batch, dtype=double)
        if with_numbers:
            bar_numbers = torch.empty(batch, size, dtype=double)
        else:
            bar_numbers = torch.zeros(1, dtype=double).expand(batch, size)
        kernel = self.adjoint_kernel(
            with_numbers=with_numbers, is_dense=is_dense, is_exact=kappa == 0.0
        )
        kernel.launch_trusted(
            block_count(batch, self.lanes),
            self.threads,
            *self._inputs(data),
            q_next.contiguous(),
            x.contiguous(),
            impulses.contiguous(),
            kappa,
            batch,
            cotangent_q.contiguous(),
            cotangent_v.contiguous(),
            q,
            v,
            control,
            force,
            past,
            now,
            bar_numbers,
        )
        return StepData(q, v, control, force, past, now, bar_numbers)

    def jacobian_kernel(self, *, is_dense: bool, is_exact: bool) -> Kernel:
        """The compiled linearisation, built at first use."""
        key = (is_dense, is_exact)
        if key not in self._jacobians:
            zeros = () if is_dense else self._zero.tolist()
            body = jacobian_body(
                self.mechanism,
                self.settings,
                frozenset(zeros),
                self.reference.weights,
                is_exact=is_exact,
            )
            self._jacobians[key] = build_kernel(
                "jacobian", body, _JACOBIAN_ARGUMENTS, lanes=self.lanes
            )
        return self._jacobians[key]

    def linearize(
        self, data: StepData, x: Tensor, impulses: Tensor, kappa: float
    ) -> tuple[Tensor, Tensor]:
        """Derivatives of a step in tangent coordinates, in one native call.

        Args:
            data: Inputs of the step.
            x: Its solution at the gradient's smoothing (B, nq).
            impulses: Impulses there (B, w); read if ``kappa`` is zero.
            kappa: Central-path parameter of the gradient [J].

        Returns:
            Derivative of next configuration and velocity with respect to configuration and velocity
            (B, 2 nv, 2 nv), and with respect to controls (B, 2 nv, nu).
        """
        batch, nv, nu = data.q.shape[0], self.mechanism.tree.nv, len(self.mechanism.actuators)
        by_state = torch.empty(batch, 2 * nv, 2 * nv, dtype=torch.float64)
        by_control = torch.empty(batch, 2 * nv, nu, dtype=torch.float64)
        is_dense = self.breaks_pattern(data.numbers)
        self.jacobian_kernel(is_dense=is_dense, is_exact=kappa == 0.0).launch_trusted(
            block_count(batch, self.lanes),
            self.threads,
            *self._inputs(data),
            x.contiguous(),
            impulses.contiguous(),
            kappa,
            batch,
            by_state,
            by_control,
        )
        return by_state, by_control
