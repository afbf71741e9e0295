"""What a benchmark leaves: a table for people and a JSON file for machines."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from solvers.core import write_whole
from solvers.kernels import lane_count

__all__ = [
    "Column",
    "Result",
    "Size",
    "describe_machine",
    "markdown",
    "print_result",
    "write_result",
]

Size = Literal["tiny", "small", "full"]

PACKAGES = ("physim", "mujoco", "torch", "warp-lang", "numpy", "gymnasium")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the printed table.

    Attributes:
        key: Key of the rows.
        title: Heading, with the unit.
        form: Format of numbers.
    """

    key: str
    title: str
    form: str = ".3g"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Answer to one question.

    Attributes:
        title: The question.
        columns: What is printed of the rows, in this order.
        rows: One record a line; may hold more than is printed.
        settings: Everything that was chosen.
        verdict: What the numbers say, whoever it favours.
        draw: Draws the rows into an image file.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    verdict: Sequence[str] = ()
    draw: Callable[[Path], None] | None = None


def describe_machine() -> dict[str, Any]:
    """Processor, cores, lanes of the kernels, system and versions of what is timed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    if versions["physim"] == "not installed":
        import physim

        versions["physim"] = physim.__version__
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "lanes": lane_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    known = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = known.get("model name", "unknown")
    return f"{name} (family {known.get('cpu family', '?')}, model {known.get('model', '?')})"


def write_result(
    result: Result, folder: Path, *, question: str, size: Size, seed: int, note: str
) -> Path:
    """Write the JSON file of a result.

    Args:
        result: The answer.
        folder: Where; made if it is missing.
        question: Name of the benchmark, and of the file.
        size: Size that it ran at.
        seed: Seed of all random numbers.
        note: What a reader of the numbers should know about the run.

    Returns:
        Path of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "question": question,
        "size": size,
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "note": note,
        **{name: value for name, value in asdict(result).items() if name != "draw"},
    }
    path = folder / f"{question}.json"
    with write_whole(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def markdown(result: Result) -> str:
    """The table and what it says, for a page of documentation."""
    heads = [column.title for column in result.columns]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    for row in result.rows:
        cells = [_shown(row.get(column.key), column.form) for column in result.columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([f"**{result.title}**", "", *lines, "", *result.verdict])


def print_result(result: Result, console: Console) -> None:
    """Print the table and what it says."""
    table = Table(title=escape(result.title), title_justify="left")
    for index, column in enumerate(result.columns):
        # Units in brackets are no markup.
        table.add_column(escape(column.title), justify="left" if index == 0 else "right")
    for row in result.rows:
        cells = (_shown(row.get(column.key), column.form) for column in result.columns)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    for line in result.verdict:
        console.print(line, markup=False, highlight=False)
    console.print()


def _shown(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if isinstance(value, int | float) else str(value)
