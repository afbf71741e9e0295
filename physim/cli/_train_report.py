"""What ``physim train`` says at its end: a record and a table."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from typing import Any, TextIO

from physim.cli._report import installed
from solvers.core import Report, Status
from solvers.pde import Problem, evaluation_grid
from solvers.pde.problems import forget_references

__all__ = ["describe_training", "show_training", "summary_rows", "time_reference"]

_VERSIONS = ("torch", "warp-lang", "numpy", "scipy")


def describe_training(
    problem: Problem,
    result: Any,
    *,
    settings: Mapping[str, Any],
    reference_seconds: float | None,
) -> dict[str, Any]:
    """Gather everything that a later reader of a result needs.

    Args:
        problem: What was solved.
        result: What ``fit`` gave.
        settings: Options in effect.
        reference_seconds: From :func:`time_reference`.

    Returns:
        JSON values: settings, status, error, residual, history, versions, machine.
    """
    import physim

    report = result.report
    last = dict(result.history[-1]) if result.history else {}
    record: dict[str, Any] = {
        "physim": physim.__version__,
        "command": "train",
        "settings": dict(settings),
        "problem": {
            "name": problem.name,
            "coefficients": dict(problem.coefficients),
            "domain": {axis: list(ends) for axis, ends in problem.domain.bounds.items()},
            "fields": list(problem.fields),
        },
        "status": _status(report, settings),
        "steps": int(report.iterations),
        "seconds": last.get("seconds"),
        "held_out": float(report.residual),
        "relative_l2": None,
        "reference_seconds": reference_seconds,
        "history": [dict(row) for row in result.history],
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }
    found = dict(getattr(result, "coefficients", {}))
    if found:
        record["coefficients"] = found
    if problem.reference is not None:
        # A map that has folded has no field to compare; what was trained is still told.
        error = float(result.relative_l2)
        if math.isfinite(error):
            record["relative_l2"] = error
        else:
            record["warning"] = "no error to tell: some places have no label, or several"
    return record


def _status(report: Report, settings: Mapping[str, Any]) -> str:
    """Name of the status; a training of which nothing was asked but time is complete, no more."""
    status = Status(int(report.status))
    wanted = (settings.get("tolerance"), settings.get("target"))
    is_judged = status != Status.CONVERGED or any(value is not None for value in wanted)
    return status.name if is_judged else "COMPLETE"


def show_training(record: Mapping[str, Any], *, stream: TextIO) -> None:
    """Print the table.

    Args:
        record: From :func:`describe_training`.
        stream: Where to.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{record['problem']['name']}: {record['status']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in summary_rows(record):
        table.add_row(name, text)
    Console(file=stream).print(table)


def summary_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of what counts most, the classical solver's time beside the training's.

    Args:
        record: From :func:`describe_training`.
    """
    coefficients = record["problem"]["coefficients"]
    numbers = ", ".join(f"{name}={value:g}" for name, value in coefficients.items())
    error, classical = record["relative_l2"], record["reference_seconds"]
    rows = [
        ("coefficients", numbers or "none"),
        ("steps", str(record["steps"])),
        ("time", "-" if record["seconds"] is None else f"{record['seconds']:.2f} s"),
        ("residual held out", f"{record['held_out']:.3g}"),
        ("relative L2 error", "not known" if error is None else f"{error:.3g}"),
    ]
    if record["settings"].get("arm"):
        rows.insert(1, ("arm", record["settings"]["arm"]))
    if classical is not None:
        rows.append(("reference takes", f"{classical:.2g} s"))
    for name, value in record.get("coefficients", {}).items():
        rows.append((f"found {name}", f"{value:.6g}"))
    last = ("warning", "save", "picture", "report", "export")
    return rows + [(name, record[name]) for name in last if name in record]


def time_reference(problem: Problem) -> float | None:
    """Measure the classical solution on a grid, forgetting first what was kept of it.

    Args:
        problem: The problem.

    Returns:
        Wall time [s]; None without a reference.
    """
    if problem.reference is None:
        return None
    forget_references()
    began = time.perf_counter()
    counts = {1: (401,), 2: (256, 101), 3: (41, 41, 21)}.get(problem.domain.dimension, (3,))
    problem.reference_values(evaluation_grid(problem, *counts))
    return time.perf_counter() - began
