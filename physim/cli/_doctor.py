"""``physim doctor``: what is installed and whether kernels compile here."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from physim.cli._errors import FAILURES
from physim.cli._outputs import check_outputs
from physim.cli._report import installed, write_json

__all__ = ["EXTRAS", "doctor"]

_DISTRIBUTIONS = (
    "torch",
    "warp-lang",
    "mujoco",
    "gymnasium",
    "numpy",
    "scipy",
    "cvxpy",
    "cvxpylayers",
    "ray",
)
# Packages of each extra, as in pyproject.toml.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "viz": ("viser", "matplotlib"),
    "fields": ("h5py", "meshio"),
    "amg": ("pyamg",),
    "assets": ("dm_control",),
}


def doctor(
    json: Annotated[
        Path | None, typer.Option(help="Write the findings as JSON; - for stdout.")
    ] = None,
) -> None:
    """Say what is installed and whether kernels compile on this machine.

    Exit code 1 if they do not.
    """
    check_outputs({}, json=json)
    findings = _examine()
    if json is not None:
        write_json(findings, json)
    if str(json) != "-":
        _show(findings)
    if not findings["kernel"]["works"]:
        raise typer.Exit(FAILURES)


def _examine() -> dict[str, Any]:
    import physim

    return {
        "physim": physim.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": installed(_DISTRIBUTIONS),
        "torch": _torch(),
        "kernel": _try_kernel(),
        "extras": {
            extra: {
                "missing": [name for name in packages if find_spec(name) is None],
                "command": f'pip install "physim[{extra}]"',
            }
            for extra, packages in EXTRAS.items()
        },
    }


def _torch() -> dict[str, Any]:
    import torch

    has_cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(0) if has_cuda else "CPU",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _try_kernel() -> dict[str, Any]:
    """Compile a kernel of one line and compare what it computes."""
    from solvers.core import PhysimError
    from solvers.kernels import aligned_empty, build_kernel, lane_count
    from solvers.kernels._warp import cache_directory

    found: dict[str, Any] = {
        "lanes": lane_count(),
        "cache": str(cache_directory()),
        "works": False,
        "seconds": None,
        "error": None,
    }
    began = time.perf_counter()
    try:
        kernel = build_kernel(
            "doctor",
            "y[block] = 2.0*x[block] + 1.0;",
            [("x", "V*"), ("y", "V*")],
            lanes=found["lanes"],
        )
        x = aligned_empty(2, 1, found["lanes"]).fill_(3.0)
        y = aligned_empty(2, 1, found["lanes"]).fill_(0.0)
        kernel(2, x, y)
        found["works"] = bool((y == 7.0).all())
        if not found["works"]:
            found["error"] = "the kernel ran but gave wrong numbers"
    except (PhysimError, ImportError, OSError, RuntimeError) as error:
        found["error"] = str(error)
    found["seconds"] = round(time.perf_counter() - began, 3)
    return found


def _show(findings: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    kernel, torch = findings["kernel"], findings["torch"]
    table = Table(title=f"physim {findings['physim']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Python", f"{findings['python']} ({sys.executable})")
    table.add_row("platform", f"{findings['platform']}, {findings['cpus']} CPUs")
    for name, version in findings["versions"].items():
        more = f" on {torch['device']}, {torch['threads']} threads" if name == "torch" else ""
        table.add_row(name, f"{version or '[red]not installed[/red]'}{more}")
    table.add_row("SIMD lanes", f"{kernel['lanes']} numbers of 64 bits")
    table.add_row("kernel cache", kernel["cache"])
    verdict = "compiles and runs" if kernel["works"] else "[red]does not work[/red]"
    table.add_row("kernel", f"{verdict} ({kernel['seconds']} s)")
    for extra, state in findings["extras"].items():
        missing = ", ".join(state["missing"])
        # A backslash keeps rich from reading the extra's brackets as a style.
        command = state["command"].replace("[", "\\[")
        text = f"missing {missing}; run: {command}" if missing else "present"
        table.add_row(f"extra {extra}", text)
    console = Console()
    console.print(table)
    if kernel["error"]:
        console.print(kernel["error"], markup=False, highlight=False)
