"""``physim train constrained``: obey an equation softly, hard, or by experts."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from physim.cli._errors import FAILURES, INTERRUPTED
from physim.cli._report import installed, write_json
from physim.cli._train import Checkpoint, Json, Picture, Seed, check_files
from solvers.core import NotConvergedError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from constraints.systems.diffusion_sorption import Fit
    from solvers.parallel import Executor

__all__ = ["constrained"]

_SYSTEMS = ("diffusion-sorption",)
_ARMS = ("soft", "hard", "experts")
_EXECUTORS = ("serial", "threads", "ray")
_VERSIONS = ("torch", "warp-lang", "numpy", "scipy", "ray")
_DAYS = (10, 100, 500)


def constrained(
    system: Annotated[str, typer.Argument(help=f"One of: {', '.join(_SYSTEMS)}.")],
    *,
    arm: Annotated[
        str,
        typer.Option(help="soft: residual in the loss; hard: one fit; experts: fits of parts."),
    ] = "experts",
    experts: Annotated[int | None, typer.Option(help="Parts of space; 4 by default.")] = None,
    apart: Annotated[bool, typer.Option("--apart", help="Solve each expert alone.")] = False,
    functions: Annotated[
        int | None, typer.Option(help="Functions of the basis: 32 for experts, 128 for hard.")
    ] = None,
    width: Annotated[int, typer.Option(help="Units of a hidden layer.")] = 64,
    points: Annotated[int, typer.Option(help="Points of the equation in a step.")] = 2048,
    executor: Annotated[
        str, typer.Option(help="Where experts are solved: serial, threads or ray.")
    ] = "serial",
    workers: Annotated[int, typer.Option(help="Threads or processes of the executor.")] = 2,
    steps: Annotated[int, typer.Option(help="Steps of Adam.")] = 100,
    budget: Annotated[
        float | None, typer.Option(help="Time after which training ends all the same [s].")
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
    import torch

    from constraints.systems import diffusion_sorption as ds
    from solvers.core import check_choice, check_positive

    check_files(checkpoint=checkpoint, save=save, picture=picture, json=json)
    check_choice("system", system, _SYSTEMS)
    chosen = ds.Arm(**_arm(arm, experts, is_apart=apart, functions=functions, width=width),
                    points=points)  # fmt: skip
    check_positive("steps", steps)
    try:
        with _open_executor(executor, workers) as opened:
            fit = ds.train(
                chosen, steps=steps, budget=budget, seed=seed, executor=opened,
                checkpoint=checkpoint, progress=None,
            )  # fmt: skip
            if save is not None:
                fit.save(save)
            test = torch.linspace(0.01, 0.19, 8, dtype=torch.float64)
            began = time.perf_counter()
            solution = ds.reference(test)
            reference_seconds = (time.perf_counter() - began) / len(test)
            prediction = fit.predict(test)
            record = _describe(
                fit, prediction, solution, jump=_jump(fit, test),
                reference_seconds=reference_seconds,
                settings={
                    "system": system, "arm": arm, "experts": chosen.experts, "apart": apart,
                    "functions": chosen.functions, "width": width, "points": points,
                    "executor": executor, "workers": opened.workers, "steps": steps,
                    "budget": budget, "seed": seed,
                },
            )  # fmt: skip
    except NotConvergedError as error:
        typer.echo(f"physim: {error}", err=True)
        raise typer.Exit(FAILURES) from error
    if save is not None:
        record["save"] = str(save)
    if picture is not None:
        record["picture"] = str(_draw(fit, prediction, solution, picture))
    if json is not None:
        write_json(record, json)
    _show(record, stream=sys.stderr if str(json) == "-" else sys.stdout)
    if record["status"] == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _arm(
    name: str, experts: int | None, *, is_apart: bool, functions: int | None, width: int
) -> dict[str, Any]:
    """Settings of an arm, complaining where options contradict each other."""
    from solvers.core import check_choice, check_positive

    check_choice("arm", name, _ARMS)
    if experts is not None:
        check_positive("experts", experts)
    if name != "experts" and (experts or 1) > 1:
        raise SettingsError(f"experts: got {experts} for arm {name!r}, expected --arm experts")
    if name != "experts" and is_apart:
        raise SettingsError(f"apart: given for arm {name!r}, expected --arm experts")
    if name == "soft":
        if functions not in {None, 1}:
            raise SettingsError(f"functions: got {functions} for arm 'soft', expected 1")
        return {"functions": 1, "width": width}
    least = 2
    if functions is not None and functions < least:
        raise SettingsError(f"functions: got {functions}, expected at least {least}; one is soft")
    if name == "hard":
        return {"functions": functions or 128, "width": width}
    parts = 4 if experts is None else experts
    return {
        "functions": functions or 32,
        "width": width,
        "experts": parts,
        "is_held": parts > 1 and not is_apart,
        "is_local": not is_apart,
    }


def _open_executor(name: str, workers: int) -> Executor:
    from solvers.core import check_choice
    from solvers.parallel import RayExecutor, SerialExecutor, ThreadExecutor

    check_choice("executor", name, _EXECUTORS)
    if name == "ray":
        return RayExecutor(workers)
    return ThreadExecutor(workers) if name == "threads" else SerialExecutor()


def _jump(fit: Fit, initial: Tensor) -> float | None:
    """Mean absolute jump of the field where experts meet."""
    if fit.mixture is None or fit.arm.experts == 1:
        return None
    import torch

    with torch.no_grad():
        field: Any = fit.solve(initial)
        return float(field.jump().mean())


def _describe(
    fit: Fit,
    prediction: Tensor,
    solution: Tensor,
    *,
    jump: float | None,
    reference_seconds: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Gather everything that a later reader of a result needs."""
    import physim
    from constraints.systems.diffusion_sorption import relative_errors

    training: Any = fit.training
    errors = relative_errors(prediction, solution)
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
        "relative_l2": float(errors.mean()),
        "relative_l2_worst": float(errors.max()),
        "jump": jump,
        "reference_seconds": reference_seconds,
        "history": [record.as_dict() for record in training.history],
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


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
        ("steps", f"{record['steps']} of {settings['steps']} in {record['seconds']:.2f} s"),
        ("relative L2 error", f"{record['relative_l2']:.2%}"),
        ("worst", f"{record['relative_l2_worst']:.2%}"),
        ("reference takes", f"{record['reference_seconds']:.2g} s a field"),
    ]
    numbers = {"loss": ".3g", "iterations": ".1f", "jump": ".1e"}
    rows += [(k, format(record[k], form)) for k, form in numbers.items() if record[k] is not None]
    rows += [(name, record[name]) for name in ("save", "picture") if name in record]
    for name, text in rows:
        table.add_row(name, text)
    Console(file=stream).print(table)


def _draw(fit: Fit, prediction: Tensor, solution: Tensor, path: Path) -> Path:
    """Draw profiles beside the reference at three days, and the loss."""
    import torch

    from solvers.figures import draw_curves, open_figure, save_figure

    figure, axes = open_figure(width=16.0, heights=[4.0], columns=len(_DAYS) + 1)
    _, cells, times = solution.shape
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    for axis, day in zip(axes, _DAYS, strict=False):
        moment = round(day / fit.system.duration * (times - 1))
        fields = {"trained": prediction, "reference": solution}
        curves = {name: u[len(u) // 2, :, moment].numpy() for name, u in fields.items()}
        draw_curves(axis, x.numpy(), curves, x_label="x [m]", y_label="concentration")
        axis.set_title(f"day {day}", fontsize="medium")
    if fit.losses:
        step = torch.arange(1, len(fit.losses) + 1).numpy()
        loss = {"loss": torch.tensor(fit.losses).numpy()}
        draw_curves(axes[-1], step, loss, x_label="step", y_label="loss", is_logarithmic=True)
    return save_figure(figure, path)
