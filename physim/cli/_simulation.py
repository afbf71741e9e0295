"""The run behind ``physim simulate``: in chunks, so that it can report, stop and resume."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from physim.dynamics import Simulator, State, Trajectory
from solvers.core import (
    Report,
    SettingsError,
    catch_interrupt,
    load_checkpoint,
    open_progress,
    save_checkpoint,
)

__all__ = ["Outcome", "fingerprint", "join", "simulate_in_chunks"]

_CHUNK = 50
_KIND = "simulation"
_TENSORS = ("q", "v", "interval", "control")
_REPORT = ("status", "iterations", "residual")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a run left.

    Attributes:
        trajectory: The motion so far; None if it was stopped before its first step.
        is_interrupted: Whether Ctrl-C ended it early.
        resumed_at: Step at which it went on from a checkpoint, 0 if it began anew.
        preparation: Wall time of the first step, which compiles or loads the kernel [s].
        seconds: Wall time of all steps of this call after that [s].
    """

    trajectory: Trajectory | None
    is_interrupted: bool
    resumed_at: int
    preparation: float
    seconds: float


def simulate_in_chunks(
    simulator: Simulator,
    state: State,
    controls: Tensor | None,
    *,
    steps: int,
    checkpoint: Path | None = None,
    every: int = 1000,
    identity: Mapping[str, Any] | None = None,
) -> Outcome:
    """Roll a batch out chunk by chunk; failed items are masked.

    Args:
        simulator: The simulator.
        state: Start.
        controls: Controls of the whole run, shape ``(steps, B, nu)``, or None for zero.
        steps: Number of steps.
        checkpoint: File that holds the run so far; an existing one of the same run is resumed.
        every: Steps between checkpoints.
        identity: Settings that a checkpoint must share to be resumed.

    Returns:
        The outcome.

    Raises:
        SettingsError: If the checkpoint belongs to another run.
        CheckpointError: If the checkpoint is damaged.
    """
    parts: list[Trajectory] = []
    if checkpoint is not None and checkpoint.exists():
        parts.append(_resume(checkpoint, identity or {}, simulator.timestep))
    done = first = saved = parts[0].steps if parts else 0
    prepared_at = time.perf_counter()
    if done < steps:
        # A step is a pure function: taken here once more, it only separates the two times.
        with torch.no_grad():
            simulator.step(state, None if controls is None else controls[0], on_failure="mask")
    began = time.perf_counter()
    size = min(_CHUNK, every) if checkpoint is not None else _CHUNK
    with (
        torch.no_grad(),
        catch_interrupt() as interrupt,
        open_progress(steps, description="simulate") as progress,
    ):
        progress.update(done)
        while done < steps and not interrupt.is_requested:
            count = min(size, steps - done)
            start = parts[-1].state(-1) if parts else state
            block = None if controls is None else controls[done : done + count]
            parts.append(simulator.rollout(start, block, count, on_failure="mask"))
            done += count
            progress.update(done, failures=float((~parts[-1].report.converged).sum()))
            if checkpoint is not None and done - saved >= every:
                parts = [join(parts)]
                _write(checkpoint, parts[0], identity or {})
                saved = done
    whole = join(parts) if parts else None
    if checkpoint is not None and whole is not None and done > saved:
        _write(checkpoint, whole, identity or {})
    return Outcome(
        trajectory=whole,
        is_interrupted=done < steps,
        resumed_at=first,
        preparation=began - prepared_at,
        seconds=time.perf_counter() - began,
    )


def join(parts: Sequence[Trajectory]) -> Trajectory:
    """Join consecutive trajectories; each starts where the one before it ended."""
    if len(parts) == 1:
        return parts[0]

    def states(name: str) -> Tensor:
        pieces = [getattr(part, name) for part in parts]
        return torch.cat([pieces[0], *(piece[1:] for piece in pieces[1:])])

    reports = [part.report for part in parts]
    return Trajectory(
        q=states("q"),
        v=states("v"),
        interval=states("interval"),
        control=torch.cat([part.control for part in parts]),
        report=Report(
            **{name: torch.cat([getattr(r, name) for r in reports]) for name in _REPORT},
            counts={
                name: torch.cat([r.counts[name] for r in reports]) for name in reports[0].counts
            },
        ),
        timestep=parts[0].timestep,
        impulses=parts[-1].impulses,
    )


def fingerprint(path: Path, start: State, controls: Tensor | None) -> str:
    """Digest of what a run computes from: model file, start and controls."""
    digest = hashlib.sha256(path.read_bytes())
    for tensor in (start.q, start.v, controls):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, trajectory: Trajectory, identity: Mapping[str, Any]) -> None:
    report = trajectory.report
    tensors = {name: getattr(trajectory, name) for name in _TENSORS}
    tensors |= {f"report.{name}": getattr(report, name) for name in _REPORT}
    tensors |= {f"count.{name}": count for name, count in report.counts.items()}
    # The next solve starts from them: without, a resumed run might take another branch of friction.
    assert trajectory.impulses is not None
    tensors["impulses"] = trajectory.impulses
    save_checkpoint(path, tensors, kind=_KIND, metadata={"identity": dict(identity)})


def _resume(path: Path, identity: Mapping[str, Any], timestep: float) -> Trajectory:
    content = load_checkpoint(path, kind=_KIND)
    written = content.metadata.get("identity", {})
    for name, here in identity.items():
        if written.get(name) != here:
            raise SettingsError(
                f"--checkpoint: {path} belongs to another run: {name} is {written.get(name)!r} "
                f"there and {here!r} here; give the same options or another file"
            )
    tensors = content.tensors
    states: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
    return Trajectory(
        **states,
        report=Report(
            **{name: tensors[f"report.{name}"] for name in _REPORT},
            counts={
                name.removeprefix("count."): tensor
                for name, tensor in tensors.items()
                if name.startswith("count.")
            },
        ),
        timestep=timestep,
        impulses=tensors.get("impulses"),
    )
