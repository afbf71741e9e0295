"""What ``physim simulate`` says at its end: a record for machines, a table for people."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from solvers.core import to_json, write_whole

if TYPE_CHECKING:
    from physim.cli._simulation import Outcome
    from physim.dynamics import Simulator
    from physim.model import Model

__all__ = ["describe_run", "installed", "show_run", "write_json"]

_VERSIONS = ("torch", "warp-lang", "mujoco", "numpy")


def describe_run(
    model: Model,
    simulator: Simulator,
    outcome: Outcome,
    *,
    settings: Mapping[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """Gather everything that a later reader of a result needs.

    Args:
        model: The model.
        simulator: The simulator.
        outcome: The run.
        settings: Options in effect.
        notes: Warnings that were shown.

    Returns:
        JSON values: settings, versions, machine, model, warnings, status, summary, wall time.
    """
    import physim
    from solvers.core import Status

    summary: dict[str, Any] = {"steps": 0, "failures": 0, "non_finite": 0}
    failures: list[list[int]] = []
    if outcome.trajectory is not None:
        summary = outcome.trajectory.summary()
        summary["status"] = {
            Status(int(code)).name: count for code, count in summary["status"].items()
        }
        failures = [list(index) for index in outcome.trajectory.report.failed_items()[:10]]
    computed = summary.get("item_steps", 0) - outcome.resumed_at * int(settings["batch"])
    return {
        "physim": physim.__version__,
        "command": "simulate",
        "status": "interrupted" if outcome.is_interrupted else "complete",
        "settings": dict(settings),
        "model": {
            "name": model.name,
            "nq": model.nq,
            "nv": model.nv,
            "nu": model.nu,
            "contact_candidates": simulator.mechanism.contact_count,
            "warnings": [
                {
                    "element": warning.element,
                    "message": warning.message,
                    "changes_dynamics": warning.changes_dynamics,
                }
                for warning in model.warnings
            ],
        },
        "warnings": notes,
        "summary": summary,
        "first_failures": failures,
        "resumed_at": outcome.resumed_at,
        "preparation_time": outcome.preparation,
        "wall_time": outcome.seconds,
        "steps_per_second": computed / outcome.seconds if outcome.seconds > 0 else None,
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def installed(distributions: tuple[str, ...]) -> dict[str, str | None]:
    """Versions of installed distributions, None for those that are not; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Write a record to a file, whole or not at all, or to standard output for ``-``."""
    text = to_json(record)
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def show_run(record: Mapping[str, Any], *, stream: TextIO) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    settings, summary = record["settings"], record["summary"]
    table = Table(title=f"{record['model']['name']}: {record['status']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = [
        (
            "simulated",
            f"{settings['duration']:g} s in steps of {settings['timestep']:g} s, "
            f"{settings['batch']} item(s)",
        ),
        (
            "steps done",
            f"{summary['steps']} in {record['wall_time']:.2f} s "
            f"(and {record['preparation_time']:.2f} s to get the kernel)",
        ),
        ("failures", f"{summary['failures']}"),
    ]
    if "half_steps" in summary:
        gap = summary["min_gap"]
        rows += [
            ("half steps", f"{summary['half_steps']} ({100 * summary['half_step_share']:.2g} %)"),
            (
                "iterations",
                f"{summary['iterations_mean']:.1f} mean, {summary['iterations_max']} most",
            ),
            ("deepest overlap", "none" if gap is None else f"{max(0.0, -gap):.2g} m"),
            ("highest speed", f"{summary['max_speed']:.3g} m/s or rad/s"),
        ]
    if record["resumed_at"]:
        rows.append(("resumed at step", str(record["resumed_at"])))
    rows += [(name, record[name]) for name in ("output", "view") if name in record]
    for name, text in rows:
        table.add_row(name, text)
    console = Console(file=stream)
    console.print(table)
    for step, item in record["first_failures"][:3]:
        console.print(f"failed: step {step}, item {item}", markup=False, highlight=False)
