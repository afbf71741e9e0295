"""``physim train constrained``: obey an equation softly, hard, or by experts."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from physim.cli._constrained import TRIALS, Choice, Trial, save_picture
from physim.cli._errors import FAILURES, INTERRUPTED
from physim.cli._report import installed, write_json
from physim.cli._train import Checkpoint, Json, Picture, Seed, check_files
from solvers.core import NotConvergedError

if TYPE_CHECKING:
    from torch import Tensor

    from solvers.parallel import Executor

__all__ = ["constrained"]

_EXECUTORS = ("serial", "threads", "ray")
_VERSIONS = ("torch", "warp-lang", "numpy", "scipy", "ray")


def constrained(
    system: Annotated[str, typer.Argument(help=f"One of: {', '.join(TRIALS)}.")],
    *,
    arm: Annotated[
        str,
        typer.Option(help="soft: residual in the loss; hard: one fit; experts: fits of parts."),
    ] = "experts",
    experts: Annotated[int | None, typer.Option(help="Parts of space; 4 by default.")] = None,
    apart: Annotated[bool, typer.Option("--apart", help="Solve each expert alone.")] = False,
    functions: Annotated[
        int | None,
        typer.Option(
            help="Functions of the basis: 32, of diffusion-sorption 128 for hard, by default."
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Units of a hidden layer, or channels: 64 or 16.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="Points of the equation in a step: 2048 or 1024.")
    ] = None,
    slabs: Annotated[
        int | None, typer.Option(help="Parts of time, one after the other; navier-stokes only.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Initial conditions: constant or waves; smooth, rough or vortices.",
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adam, adamw, diffgrad, rmsprop or sgd.")] = "adam",
    executor: Annotated[
        str, typer.Option(help="Where experts are solved: serial, threads or ray.")
    ] = "serial",
    workers: Annotated[int, typer.Option(help="Threads or processes of the executor.")] = 2,
    steps: Annotated[int, typer.Option(help="Steps of the optimizer.")] = 100,
    budget: Annotated[
        float | None, typer.Option(help="Seconds after which training ends all the same.")
    ] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    save: Annotated[Path | None, typer.Option(help="Write the fit: .safetensors.")] = None,
    picture: Picture = None,
    json: Json = None,
) -> None:
    """Train a basis whose combinations obey an equation; no solution is shown to it.

    All executors give the same bits. After Ctrl-C, the same command with the same --checkpoint goes
    on to the numbers that it would have had without. Exit code 1 if a solve failed, 2 for bad
    input, 130 after Ctrl-C.
    """
    from solvers.core import check_choice, check_positive

    check_files(checkpoint=checkpoint, save=save, picture=picture, json=json)
    check_choice("system", system, tuple(TRIALS))
    trial = TRIALS[system]()
    family = trial.families[0] if family is None else family
    check_choice("family", family, trial.families)
    choice = Choice(arm=arm, experts=experts, is_apart=apart, functions=functions, width=width,
                    points=points, slabs=slabs)  # fmt: skip
    chosen = trial.arm(choice)
    check_positive("steps", steps)
    try:
        with _open_executor(executor, workers) as opened:
            fit = trial.module.train(
                chosen, family=family, optimizer=optimizer, steps=steps, budget=budget, seed=seed,
                executor=opened, checkpoint=checkpoint, progress=None,
            )  # fmt: skip
            if save is not None:
                fit.save(save)
            test = trial.draw_test(family)
            solution, reference_seconds = trial.reference(test)
            prediction, jump, trouble = _judge(trial, fit, test, choice.parts)
            record = _describe(
                fit, prediction, solution, jump=jump, trouble=trouble,
                reference_seconds=reference_seconds,
                settings={
                    "system": system, "family": family, "arm": arm, "experts": choice.parts,
                    "apart": apart, "functions": trial.functions(chosen), "width": chosen.width,
                    "points": chosen.points, "slabs": getattr(chosen, "slabs", None),
                    "optimizer": optimizer, "executor": executor, "workers": opened.workers,
                    "steps": steps, "budget": budget, "seed": seed,
                },
            )  # fmt: skip
    except NotConvergedError as error:
        typer.echo(f"physim: {error}", err=True)
        raise typer.Exit(FAILURES) from error
    if save is not None:
        record["save"] = str(save)
    if picture is not None and prediction is not None:
        record["picture"] = str(save_picture(trial, fit, prediction, solution, picture))
    if json is not None:
        write_json(record, json)
    _show(record, stream=sys.stderr if str(json) == "-" else sys.stdout)
    if record["status"] == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if prediction is None:
        raise typer.Exit(FAILURES)


def _judge(
    trial: Trial, fit: Any, test: Tensor, parts: int
) -> tuple[Tensor | None, float | None, str | None]:
    """Prediction and jump on the tests, or why a solve with this basis failed."""
    try:
        return fit.predict(trial.seen(test)), trial.jump(fit, test, parts), None
    except NotConvergedError as error:
        return None, None, str(error)


def _open_executor(name: str, workers: int) -> Executor:
    from solvers.core import check_choice
    from solvers.parallel import RayExecutor, SerialExecutor, ThreadExecutor

    check_choice("executor", name, _EXECUTORS)
    if name == "ray":
        return RayExecutor(workers)
    return ThreadExecutor(workers) if name == "threads" else SerialExecutor()


def _describe(
    fit: Any,
    prediction: Tensor | None,
    solution: Tensor,
    *,
    jump: float | None,
    trouble: str | None,
    reference_seconds: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Gather everything that a later reader of a result needs."""
    import physim
    from constraints.systems import relative_errors

    training: Any = fit.training
    errors = None if prediction is None else relative_errors(prediction, solution)
    done = len(fit.losses)
    status = "complete" if done == settings["steps"] else "budget spent"
    return {
        "physim": physim.__version__,
        "command": "train constrained",
        "settings": dict(settings),
        "status": "interrupted" if training.is_interrupted else status,
        "steps": done,
        "seconds": training.history[-1].seconds if done else 0.0,
        "cpu_seconds": fit.seconds,
        "loss": fit.losses[-1] if done else None,
        "iterations": sum(fit.iterations) / done if done and fit.iterations else None,
        "relative_l2": None if errors is None else float(errors.mean()),
        "relative_l2_worst": None if errors is None else float(errors.max()),
        "warning": trouble,
        "jump": jump,
        "reference_seconds": reference_seconds,
        "history": [record.as_dict() for record in training.history],
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def _errors(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    if record["relative_l2"] is None:
        return [("warning", f"no error to tell: {record['warning']}")]
    return [
        ("relative L2 error", f"{record['relative_l2']:.2%}"),
        ("worst", f"{record['relative_l2_worst']:.2%}"),
    ]


def _show(record: Mapping[str, Any], *, stream: TextIO) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    settings = record["settings"]
    table = Table(title=f"{settings['system']}: {record['status']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    parts = "" if settings["arm"] != "experts" else f", {settings['experts']} parts"
    rows = [
        ("arm", f"{settings['arm']}{parts}, {settings['functions']} function(s)"),
        ("initial conditions", settings["family"]),
        ("steps", f"{record['steps']} of {settings['steps']} in {record['seconds']:.2f} s"),
        *_errors(record),
        ("reference takes", f"{record['reference_seconds']:.2g} s a field"),
    ]
    numbers = {"loss": ".3g", "iterations": ".1f", "jump": ".1e"}
    rows += [(k, format(record[k], form)) for k, form in numbers.items() if record[k] is not None]
    rows += [(name, record[name]) for name in ("save", "picture") if name in record]
    for name, text in rows:
        table.add_row(name, text)
    Console(file=stream).print(table)
