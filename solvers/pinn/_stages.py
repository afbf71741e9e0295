"""Trainings one after the other, each from where the last one ended, with a file to go on from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.core import (
    CheckpointError,
    Report,
    Status,
    check_output,
    check_positive,
    combine_status,
    load_checkpoint,
    save_checkpoint,
)
from solvers.derivatives import ResidualProgram
from solvers.pinn._pinn import PINN
from solvers.pinn._result import PINNResult

__all__ = ["Stages", "run_stages"]

_KIND = "pinn-stages"

Maker = Callable[[Sequence[PINNResult]], PINN]
"""Results of earlier stages to the network of the next."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What several trainings gave.

    Attributes:
        results: One a stage, as far as training came.
        programs: How the parameters of each become fields.
        history: Rows of all stages, with ``stage`` from 0; steps and times go on.
        report: First status that is not ``CONVERGED``, ``MAX_ITERATIONS`` if some stages were not
            begun; steps and counts of all; the largest residual.
        is_interrupted: Whether Ctrl-C ended the last of them.
    """

    results: list[PINNResult]
    programs: list[ResidualProgram]
    history: Sequence[Mapping[str, float]]
    report: Report
    is_interrupted: bool = False


def run_stages(
    makers: Sequence[Maker],
    *,
    budget: float,
    cpu_budget: float | None,
    checkpoint: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    options: Sequence[Mapping[str, Any]],
) -> Stages:
    """Train stage after stage.

    Args:
        makers: Make the networks; all must have equally many parameters.
        budget: Wall time of all stages; what a stage leaves goes to the later ones [s].
        cpu_budget: CPU time, likewise [s].
        checkpoint: File with the stages that are done; the running stage has one beside it.
        settings: What the run is, JSON values; a file with other ones is refused.
        options: Of `PINN.fit`, one a stage.

    Returns:
        Results of the stages. After Ctrl-C, of those that were begun.

    Raises:
        CheckpointError: If the file belongs to another run.
    """
    check_positive("budget", budget)
    if cpu_budget is not None:
        check_positive("cpu_budget", cpu_budget)
    file = None if checkpoint is None else check_output("checkpoint", checkpoint)
    done = _read(file, settings)
    is_interrupted = False
    results: list[PINNResult] = []
    programs: list[ResidualProgram] = []
    for stage, make in enumerate(makers):
        pinn = make(results)
        programs.append(pinn.collocation.program)
        if stage < len(done):
            theta, kept = done[stage]
            results.append(pinn.result(theta, _report(kept), kept["history"]))
            continue
        left = len(makers) - stage
        spent = [result.history[-1] for result in results if result.history]
        running = None if file is None else _beside(file, stage)
        result = pinn.fit(
            max(budget - sum(row["seconds"] for row in spent), 1e-3) / left,
            cpu_budget=None
            if cpu_budget is None
            else max(cpu_budget - sum(row["cpu_seconds"] for row in spent), 1e-3) / left,
            start=results[-1].network.theta if results else None,
            checkpoint=running,
            on_failure="mask",
            **options[stage],
        )
        results.append(result)
        is_interrupted = pinn.is_interrupted
        if is_interrupted or int(result.report.status) == Status.NON_FINITE:
            break
        if file is not None and running is not None:
            _write(file, results, settings)
            running.unlink(missing_ok=True)
    report = _combined(results, len(makers))
    return Stages(results, programs, _history(results), report, is_interrupted)


def _beside(file: Path, stage: int) -> Path:
    return file.with_name(f"{file.stem}.stage{stage}{file.suffix}")


def _write(file: Path, results: Sequence[PINNResult], settings: Mapping[str, Any]) -> None:
    kept = [
        {
            "status": int(result.report.status),
            "iterations": int(result.report.iterations),
            "residual": float(result.report.residual),
            "counts": {name: int(count) for name, count in result.report.counts.items()},
            "history": [dict(row) for row in result.history],
        }
        for result in results
    ]
    tensors = {f"theta.{k}": result.network.theta.detach() for k, result in enumerate(results)}
    save_checkpoint(
        file, tensors, kind=_KIND, metadata={"settings": dict(settings), "stages": kept}
    )


def _read(file: Path | None, settings: Mapping[str, Any]) -> list[tuple[Tensor, dict[str, Any]]]:
    if file is None or not file.exists():
        return []
    found = load_checkpoint(file, kind=_KIND)
    known = found.metadata["settings"]
    if known != settings:
        changed = sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k))
        raise CheckpointError(
            f"{file}: was written with other values of {', '.join(changed)}; give the same "
            "settings, or another file"
        )
    return [(found.tensors[f"theta.{k}"], kept) for k, kept in enumerate(found.metadata["stages"])]


def _report(kept: Mapping[str, Any]) -> Report:
    return Report(
        status=torch.tensor(kept["status"]),
        iterations=torch.tensor(kept["iterations"]),
        residual=torch.tensor(kept["residual"], dtype=torch.float64),
        counts={name: torch.tensor(count) for name, count in kept["counts"].items()},
    )


def _history(results: Sequence[PINNResult]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    before = dict.fromkeys(("step", "seconds", "cpu_seconds"), 0.0)
    for stage, result in enumerate(results):
        rows += [
            {**row, **{name: row[name] + past for name, past in before.items()}, "stage": stage}
            for row in result.history
        ]
        if rows:
            before = {name: rows[-1][name] for name in before}
    return rows


def _combined(results: Sequence[PINNResult], wanted: int) -> Report:
    reports = [result.report for result in results]
    status = reduce(combine_status, (report.status for report in reports))
    if len(results) < wanted:
        status = combine_status(status, torch.tensor(int(Status.MAX_ITERATIONS)))
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update({name: int(count) for name, count in report.counts.items()})
    return Report(
        status=status,
        iterations=torch.stack([report.iterations for report in reports]).sum(),
        residual=torch.stack([report.residual for report in reports]).max(),
        counts={name: torch.tensor(count) for name, count in counts.items()},
    )
