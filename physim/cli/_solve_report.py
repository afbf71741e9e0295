"""What ``physim solve`` says at its end: a record for machines, a table for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any, TextIO

from physim.cli._report import installed
from physim.cli._solve_run import Run
from physim.cli._systems import System
from solvers.core import Report, Status
from solvers.linear import PoissonOperator, SparseOperator

__all__ = ["describe_solve", "show_solve"]

_CONTRADICTION = {
    "cells": (
        "The source does not add up to zero in a region closed by walls, so nothing solves the "
        "system; the solution of the nearest one is given. Balance the source, open a side "
        "(outside) or hold a value (cells of 2)."
    ),
    "matrix": (
        "The matrix is singular and the right-hand side is not in its range, so nothing solves the "
        "system; what is given leaves the residual that is shown. Look for empty rows and for what "
        "is held nowhere, or remove from the right-hand side what the null space of A.T holds of it"
    ),
}
_VERSIONS = ("torch", "warp-lang", "scipy", "pyamg", "numpy")


def describe_solve(
    system: System, run: Run, *, settings: Mapping[str, Any], reading: float
) -> dict[str, Any]:
    """Gather everything that a later reader of a result needs.

    Args:
        system: The system.
        run: The solve.
        settings: Options in effect.
        reading: Time to read the file [s].
    """
    import physim

    outcome = run.outcome
    report = Report(status=outcome.status, iterations=outcome.iterations, residual=outcome.residual)
    rows = zip(
        outcome.status.reshape(-1).tolist(),
        outcome.iterations.reshape(-1).tolist(),
        outcome.residual.reshape(-1).tolist(),
        strict=True,
    )
    return {
        "physim": physim.__version__,
        "command": "solve",
        "settings": dict(settings),
        "system": _describe_system(system),
        "solver": run.label,
        "summary": report.summary(),
        "items": [
            {
                "status": Status(status).name,
                "advice": _advice(Status(status), system.kind),
                "iterations": iterations,
                "residual": residual,
            }
            for status, iterations, residual in rows
        ],
        "time": {
            "reading": reading,
            "start": run.start,
            "preparation": run.preparation,
            "solve": run.seconds,
        },
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def _advice(status: Status, kind: str) -> str:
    return _CONTRADICTION[kind] if status == Status.INFEASIBLE else status.advice


def _describe_system(system: System) -> dict[str, Any]:
    operator = system.operator
    described: dict[str, Any] = {
        "kind": system.kind,
        "shape": list(operator.domain),
        "unknowns": operator.size,
        "symmetric": operator.is_symmetric,
    }
    if isinstance(operator, PoissonOperator):
        described["unknowns"] = int(operator.active.sum())
        described["periodic"] = list(operator.periodic)
    if isinstance(operator, SparseOperator):
        described["nonzeros"] = operator.values.numel()
    return described


def show_solve(record: Mapping[str, Any], *, stream: TextIO) -> None:
    """Print the table.

    Args:
        record: From `describe_solve`.
        stream: Where to.
    """
    from rich.console import Console
    from rich.table import Table

    summary, system, times = record["summary"], record["system"], record["time"]
    table = Table(title=str(record["settings"]["system"]), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    shape = " x ".join(map(str, system["shape"]))
    rows = [
        ("system", f"{system['kind']} {shape}, {system['unknowns']} unknowns"),
        ("right-hand side", f"{record['settings']['rhs']}, {summary['items']} item(s)"),
        ("solver", record["solver"]),
        ("converged", f"{summary['converged']} of {summary['items']}"),
        ("iterations", f"{summary['iterations']['max']} at most"),
        ("residual", _number(summary["residual"]["max"], " at most, relative")),
        (
            "time",
            f"{times['preparation']:.3g} s to prepare, {times['solve']:.3g} s to solve"
            + (f", {times['start']:.2g} s to start processes" if times["start"] else ""),
        ),
    ]
    if "output" in record:
        rows.append(("output", record["output"]))
    for name, text in rows:
        table.add_row(name, text)
    console = Console(file=stream)
    console.print(table)
    for number, item in enumerate(record["items"]):
        if item["status"] != "CONVERGED":
            line = f"item {number} {item['status']}: {item['advice']}"
            console.print(line, markup=False, highlight=False)


def _number(value: float | None, after: str) -> str:
    return "not finite" if value is None else f"{value:.3g}{after}"
