"""The report of a training as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from physim.cli._train_report import summary_rows
from solvers.core import PhysimError, write_whole

__all__ = ["command_line", "write_report"]

_MOST_ROWS = 24
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "img{width:100%}table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "td,th{padding:.15rem .9rem .15rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{background:#f4f4f4}"
)
_COMMANDS = {"PINN": "pinn", "LagrangianPINN": "lpinn"}


def write_report(record: Mapping[str, Any], result: Any, path: Path) -> Path:
    """Write what was trained, how well, and how it got there.

    Args:
        record: From ``describe_training``.
        result: What ``fit`` gave; draws itself.
        path: File, written whole or not at all.

    Returns:
        The path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    picture = _picture(result)
    with write_whole(path) as partial:
        partial.write_text(_page(record, picture), encoding="utf-8")
    return path


def command_line(settings: Mapping[str, Any]) -> str:
    """The command that trains the same again.

    Args:
        settings: Of the record: the network, the problem with what was set, and options by name.

    Returns:
        A line for a shell.
    """
    network = settings["network"]
    words = ["physim", "train", _COMMANDS.get(network, network), settings["problem"]]
    for name, value in settings.items():
        if name in ("network", "problem") or value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            words += [word for pair in value.items() for word in (option, _pair(*pair))]
            continue
        words.append(option)
        if value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.join(words)


def _pair(name: str, value: Any) -> str:
    """A setting, a number or several, as a command line takes it."""
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return f"{name}={','.join(str(number) for number in numbers)}"


def _picture(result: Any) -> str:
    """The picture of a result as an element, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            drawn = result.plot(Path(folder) / "picture.png").read_bytes()
        except PhysimError as error:
            return f"<p>No picture: {escape(str(error))}</p>"
    data = base64.b64encode(drawn).decode("ascii")
    return f'<img alt="fields, errors and history" src="data:image/png;base64,{data}">'


def _page(record: Mapping[str, Any], picture: str) -> str:
    problem = record["problem"]
    title = f"{problem['name']}: {record['status']}"
    domain = {axis: f"{low:g} to {high:g}" for axis, (low, high) in problem["domain"].items()}
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><code>{escape(command_line(record['settings']))}</code></p>",
        _table(summary_rows(record)),
        picture,
        "<h2>Problem</h2>",
        _table([("fields", ", ".join(problem["fields"])), *domain.items()]),
        "<h2>History</h2>",
        _history(record["history"]),
        "<h2>Settings</h2>",
        _table((name, _text(value)) for name, value in record["settings"].items()),
        "<h2>Versions and machine</h2>",
        _table(
            (name, _text(value))
            for part in ({"physim": record["physim"]}, record["versions"], record["machine"])
            for name, value in part.items()
        ),
    ]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = (
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(text))}</td></tr>" for name, text in rows
    )
    return "<table>" + "".join(lines) + "</table>"


def _history(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows evenly out of the history, the first and the last among them."""
    if not rows:
        return "<p>No record was made.</p>"
    count = min(len(rows), _MOST_ROWS)
    chosen = [rows[round(k * (len(rows) - 1) / max(count - 1, 1))] for k in range(count)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f'<th class="n">{escape(name.replace("_", " "))}</th>' for name in names)
    lines = (
        "<tr>"
        + "".join(f'<td class="n">{escape(_text(row.get(name)))}</td>' for name in names)
        + "</tr>"
        for row in chosen
    )
    note = f"<p>{count} of {len(rows)} records.</p>" if count < len(rows) else ""
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>{note}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in value.items()) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
