"""Run the benchmarks: ``python benchmarks/run.py [GROUP] [-f REGEX] [--size tiny|small|full]``.

Each question is a file with ``run(size, seed) -> Result``; it prints a table and leaves
``<output>/<question>.json``. One thread, CPU time, alternatives in turns. At size ``tiny`` the
numbers mean nothing: it shows that everything runs.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import sys
import time
from pathlib import Path

# One thread for everybody: read by the libraries of peers when they are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

GROUPS = {
    "simulator": (
        "contact_step",
        "batch_size",
        "one_environment",
        "step_gradient",
        "rollout_gradient",
        "accuracy",
        "work_precision",
        "penetration",
        "contact_states",
        "large_models",
        "threads",
    ),
    "linear": (
        "linear_solve",
        "linear_large",
        "linear_gradient",
        "linear_update",
        "linear_hard",
        "linear_aggregation",
        "parallel_overhead",
        "parallel_speedup",
    ),
    "dcdm": ("dcdm_directions", "dcdm_recycling"),
    "optim": ("optim_theory", "optim_zoo", "optim_poisson", "optim_attacks", "optim_paths"),
    "constraints": (
        "constraints_quadratic",
        "constraints_cones",
        "constraints_least_squares",
        "constraints_experts",
        "constraints_systems",
    ),
    "pinn": (
        "pinn_engine",
        "threads",
        "pinn_accuracy",
        "pinn_defaults",
        "pinn_arms",
        "pinn_spectrum",
        "pinn_ritz",
        "pinn_peer",
    ),
}
QUESTIONS = tuple(dict.fromkeys(name for group in GROUPS.values() for name in group))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("group", nargs="?", choices=GROUPS, help="all groups by default")
    parser.add_argument("-f", "--filter", default="", metavar="REGEX", help="questions to run")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="rows to measure, of questions that can choose"
    )
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="kept with the numbers: what else was running")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    options = parser.parse_args(arguments)
    try:
        among = GROUPS[options.group] if options.group else QUESTIONS
        chosen = [name for name in among if re.search(options.filter, name)]
    except re.error as error:
        parser.error(f"-f {options.filter!r} is no regular expression: {error}")
    if not chosen:
        parser.error(f"-f {options.filter!r} matches none of {', '.join(QUESTIONS)}")
    if options.only and (whole := [name for name in chosen if not _can_choose(name)]):
        parser.error(f"--only {options.only!r}: {', '.join(whole)} measures all of its rows")
    torch.set_num_threads(1)
    # A table cut to the width of a pipe would lose its numbers.
    console = Console() if sys.stdout.isatty() else Console(width=120)

    from record import markdown, print_result, write_result

    for name in chosen:
        begun = time.perf_counter()
        rows = {"only": options.only} if options.only else {}
        result = importlib.import_module(name).run(options.size, options.seed, **rows)
        if options.markdown:
            print(markdown(result), end="\n\n")
        else:
            print_result(result, console)
        if result.draw is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            result.draw(options.output / f"{name}.png")
        path = write_result(
            result,
            options.output,
            question=name,
            size=options.size,
            seed=options.seed,
            note=options.note,
        )
        console.print(f"{path}  ({time.perf_counter() - begun:.0f} s)\n", highlight=False)
    return 0


def _can_choose(question: str) -> bool:
    """Whether a question measures only the rows that it is asked for."""
    return "only" in inspect.signature(importlib.import_module(question).run).parameters


if __name__ == "__main__":
    sys.exit(main())
