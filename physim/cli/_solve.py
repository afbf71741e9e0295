"""``physim solve``: solve a linear system that is in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from physim.cli._errors import FAILURES
from physim.cli._outputs import check_outputs
from physim.cli._report import write_json
from solvers.core import SettingsError, require_extra, write_whole

if TYPE_CHECKING:
    from solvers.linear import LinearOperator, LinearSolver

__all__ = ["solve"]

_OUTPUT = (".npz", ".npy", ".mtx", ".h5", ".hdf5")


def solve(
    system: Annotated[
        Path,
        typer.Argument(
            help="Matrix Market file, scipy.sparse npz, or npz/HDF5 with arrays cells and source."
        ),
    ],
    *,
    rhs: Annotated[
        str | None,
        typer.Option(help="ones, random, or a file; the source of the system's file by default."),
    ] = None,
    method: Annotated[
        Literal["auto", "cg", "multigrid", "aggregation", "dcdm", "amg", "direct"],
        typer.Option(help="auto picks by the kind, symmetry and size of the system."),
    ] = "auto",
    rtol: Annotated[float, typer.Option(help="Relative residual to reach.")] = 1e-8,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Limit of the iterations; the method's own.")
    ] = None,
    executor: Annotated[
        Literal["serial", "ray"],
        typer.Option(
            help="ray: right-hand sides in processes; one grid is cut into parts for them."
        ),
    ] = "serial",
    workers: Annotated[int, typer.Option(min=1, help="Processes of --executor ray.")] = 2,
    output: Annotated[
        Path | None, typer.Option(help="Write the solution: .npz, .npy, .mtx or .h5.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write settings and results as JSON; - for stdout.")
    ] = None,
) -> None:
    """Solve a linear system.

    In cells 0 is fluid, 1 solid, 2 open air; an archive may also hold density or coefficient,
    values, mass, spacing, periodic and outside. Exit code 1 if an item failed (its best iterate is
    written), 2 for bad input, 130 after Ctrl-C.
    """
    check_outputs(
        {"output": (output, _OUTPUT)}, json=json, reads={"the system": system, "--rhs": rhs or ""}
    )
    from physim.cli._solve_report import describe_solve, show_solve
    from physim.cli._solve_run import run_serial, run_with_ray
    from physim.cli._systems import read_system

    began = time.perf_counter()
    read = read_system(system, rhs=rhs)
    reading = time.perf_counter() - began
    solver = _METHODS[method](read.operator, rtol, iterations)
    if executor == "serial":
        run = run_serial(read, solver)
    else:
        run = run_with_ray(read, solver, workers=workers)
    settings = {
        "system": str(system),
        "rhs": read.right,
        "method": method,
        "rtol": rtol,
        "iterations": iterations,
        "executor": executor,
        "workers": workers if executor == "ray" else 1,
    }
    record = describe_solve(read, run, settings=settings, reading=reading)
    if output is not None:
        record["output"] = str(_write_solution(run.outcome, output))
    if json is not None:
        write_json(record, json)
    show_solve(record, stream=sys.stderr if str(json) == "-" else sys.stdout)
    if record["summary"]["converged"] < record["summary"]["items"]:
        raise typer.Exit(FAILURES)


def _auto(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.linear import choose_solver

    return _limited(choose_solver(operator, rtol=rtol), iterations)


def _conjugate_gradient(
    operator: LinearOperator, rtol: float, iterations: int | None
) -> LinearSolver:
    from solvers.linear import ConjugateGradient, Jacobi

    solver = ConjugateGradient(preconditioner=Jacobi(), rtol=rtol, max_iterations=10_000)
    return _limited(solver, iterations)


def _multigrid(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator

    if not isinstance(operator, PoissonOperator):
        raise SettingsError(
            "--method multigrid needs a grid and the file holds a matrix; use --method amg"
        )
    return _limited(ConjugateGradient(preconditioner=Multigrid(), rtol=rtol), iterations)


def _algebraic(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.linear import AlgebraicMultigrid, ConjugateGradient

    return _limited(ConjugateGradient(preconditioner=AlgebraicMultigrid(), rtol=rtol), iterations)


def _aggregation(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.linear import AggregationMultigrid, ConjugateGradient

    solver = ConjugateGradient(preconditioner=AggregationMultigrid(), rtol=rtol)
    return _limited(solver, iterations)


def _deep(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.dcdm import DeepConjugateDirection

    if len(operator.domain) != 3:
        raise SettingsError("--method dcdm needs a grid of three axes; use --method auto")
    return _limited(DeepConjugateDirection(rtol=rtol), iterations)


def _direct(operator: LinearOperator, rtol: float, iterations: int | None) -> LinearSolver:
    from solvers.linear import SparseLU

    return SparseLU(rtol=rtol)


_METHODS: dict[str, Callable[[Any, float, int | None], LinearSolver]] = {
    "auto": _auto,
    "cg": _conjugate_gradient,
    "multigrid": _multigrid,
    "aggregation": _aggregation,
    "dcdm": _deep,
    "amg": _algebraic,
    "direct": _direct,
}


def _limited(solver: LinearSolver, iterations: int | None) -> LinearSolver:
    """The same method with another limit, where it has one; no second method beyond it."""
    from dataclasses import replace

    from solvers.linear import Fallback

    if iterations is None:
        return solver
    if isinstance(solver, Fallback):
        first: Any = solver.first
        is_patient = getattr(first, "patience", None) is not None
        return _limited(replace(first, patience=None) if is_patient else first, iterations)
    has_limit = hasattr(solver, "max_iterations")
    return replace(solver, max_iterations=iterations) if has_limit else solver  # type: ignore[type-var]


def _write_solution(outcome: Any, path: Path) -> Path:
    """Write the solution, whole or not at all."""
    import numpy as np

    x = outcome.value.numpy()
    ending = path.suffix.lower()
    named = {
        "x": x,
        "status": outcome.status.numpy(),
        "iterations": outcome.iterations.numpy(),
        "residual": outcome.residual.numpy(),
    }
    with write_whole(path) as partial:
        if ending == ".npz":
            np.savez(partial, **named)
        elif ending == ".npy":
            np.save(partial, x)
        elif ending == ".mtx":
            import scipy.io

            # Columns are items; a grid is flattened with its last axis fastest.
            items = x.shape[0] if outcome.status.ndim else 1
            scipy.io.mmwrite(partial, x.reshape(items, -1).T)
        else:
            h5py = require_extra("h5py", "fields")
            with h5py.File(partial, "w") as file:
                for name, array in named.items():
                    file[name] = array
    return path
