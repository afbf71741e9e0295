"""``physim train``: networks for named differential equations."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from physim.cli._errors import FAILURES, INTERRUPTED, report_errors
from physim.cli._outputs import check_outputs
from physim.cli._report import write_json
from solvers.core import NotConvergedError, SettingsError

__all__ = ["check_files", "end_training", "train"]

train = typer.Typer(
    help="Train networks; problems lists what pinn, lpinn, ritz and landscape take.",
    no_args_is_help=True,
)

_PICTURES = (".png", ".svg", ".pdf")
_NETWORK = (".safetensors",)

ProblemName = Annotated[
    str, typer.Argument(help="Name of the problem, as physim train problems lists them.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of the problem, as in --set beta=30; may be repeated."),
]
Budget = Annotated[float, typer.Option(help="Time to train, in seconds.")]
Tolerance = Annotated[
    float | None, typer.Option(help="Stop when the residual on held-out points is below.")
]
Target = Annotated[
    float | None, typer.Option(help="Stop when the error against the reference is below.")
]
Optimizer = Annotated[
    str,
    typer.Option(
        help="self-scaled-broyden, levenberg-marquardt, gns, natural-gradient, lbfgs, adam or "
        "diffgrad; several with commas follow one another."
    ),
]
Arm = Annotated[
    str | None,
    typer.Option(
        help="How to train where the plain network fails: curriculum, time-marching or xpinn; "
        "weights causal, gradient-norm or tangent-kernel; sampling adaptive, refined or even. "
        "Several with commas."
    ),
]
ArmSettings = Annotated[
    list[str] | None,
    typer.Option(
        help="Setting of an arm, as in windows=10; of curriculum a coefficient with its values on "
        "the way, as in beta=10,20; of xpinn an axis with its number of pieces, as in t=3."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the network and of the points.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="File to write on the way, and to go on from if it is there.")
]
Save = Annotated[Path | None, typer.Option(help="Write the network: .safetensors.")]
Picture = Annotated[
    Path | None, typer.Option(help="Draw field, error and history: .png, .svg or .pdf.")
]
Report = Annotated[
    Path | None, typer.Option(help="Write a report with figures and settings: .html.")
]
Export = Annotated[
    Path | None, typer.Option(help="Write fields on a grid: .vtu or .pvd (ParaView), .npz.")
]
Json = Annotated[
    Path | None, typer.Option(help="Write settings and results as JSON; - for stdout.")
]


def _command(kind: str, name: str, story: str) -> None:
    """Add a command that trains one kind of network; both take the same options."""

    def command(
        problem: ProblemName,
        *,
        settings: Settings = None,
        optimizer: Optimizer = "self-scaled-broyden",
        arm: Arm = None,
        arm_set: ArmSettings = None,
        budget: Budget = 60.0,
        tolerance: Tolerance = None,
        target: Target = None,
        seed: Seed = 0,
        checkpoint: Checkpoint = None,
        save: Save = None,
        picture: Picture = None,
        report: Report = None,
        export: Export = None,
        json: Json = None,
    ) -> None:
        _train(
            kind, problem, settings or [], optimizer=optimizer, arm=arm, arm_set=arm_set or [],
            budget=budget, tolerance=tolerance, target=target, seed=seed, checkpoint=checkpoint,
            save=save, picture=picture, report=report, export=export, json=json,
        )  # fmt: skip

    command.__doc__ = f"""{story}

    Exit code 1 if the tolerance or target was not met, 2 for bad input, 130 after Ctrl-C.
    """
    train.command(name)(report_errors(command))


_command("PINN", "pinn", "Train a physics-informed network.")
_command(
    "LagrangianPINN",
    "lpinn",
    "Train a Lagrangian network: the solution on its characteristics.",
)


@train.command()
@report_errors
def problems() -> None:
    """List the problems with their settings."""
    from rich.console import Console
    from rich.table import Table

    from solvers.pde.problems import problem_names, problem_settings

    table = Table("problem", "settings")
    for name in problem_names():
        known = problem_settings(name)
        table.add_row(name, " ".join(f"{key}={_text(value)}" for key, value in known.items()))
    Console().print(table)


def parse_settings(pairs: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Read settings such as ``beta=30`` or ``modes=1,4``.

    Args:
        pairs: Name, equals sign and number, or numbers with commas between them.
        option: Name of the option, for messages.

    Returns:
        Settings by name.

    Raises:
        SettingsError: If a pair is of another form or a name comes twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise SettingsError(
                f"{option}: got {pair!r}, expected a name and a number, as in beta=30"
            )
        if name in settings:
            raise SettingsError(f"{option}: {name} is given twice, expected once")
        try:
            numbers = [_number(part) for part in text.split(",")]
        except ValueError:
            raise SettingsError(
                f"{option}: {name} is {text!r}, expected a finite number, or several with commas"
            ) from None
        settings[name.strip().replace("-", "_")] = numbers[0] if len(numbers) == 1 else (*numbers,)
    return settings


def _number(text: str) -> float | int:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return int(text) if text.strip().lstrip("+-").isdigit() else value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _train(
    kind: str,
    name: str,
    pairs: Sequence[str],
    *,
    optimizer: str,
    arm: str | None,
    arm_set: Sequence[str],
    budget: float,
    tolerance: float | None,
    target: float | None,
    seed: int,
    checkpoint: Path | None,
    save: Path | None,
    picture: Path | None,
    report: Path | None,
    export: Path | None,
    json: Path | None,
) -> None:
    check_files(
        checkpoint=checkpoint, save=save, picture=picture, report=report, export=export, json=json
    )
    chosen = parse_settings(pairs)
    arm_settings = parse_settings(arm_set, option="--arm-set")
    arms = [] if arm is None else [part.strip() for part in arm.split(",")]
    optimizers = [part.strip() for part in optimizer.split(",")]
    import solvers.pinn as networks
    from physim.cli._train_arms import make_solver
    from physim.cli._train_html import write_report
    from physim.cli._train_report import (
        describe_training,
        show_training,
        time_reference,
    )
    from solvers.pde.problems import find_problem

    problem = find_problem(name, **chosen)
    if export is not None:
        networks.check_export(export, problem)
    solver = make_solver(problem, arms, arm_settings, kind=kind, seed=seed)
    reference_seconds = time_reference(problem)
    result = solver.fit(
        optimizer=optimizers, budget=budget, tolerance=tolerance, target=target,
        checkpoint=checkpoint, on_failure="mask", measure=problem.reference is not None,
    )  # fmt: skip
    record = describe_training(
        problem,
        result,
        reference_seconds=reference_seconds,
        settings={
            "network": kind,
            "problem": name,
            "set": chosen,
            "optimizer": optimizer,
            "arm": arm,
            "arm_set": arm_settings,
            "budget": budget,
            "tolerance": tolerance,
            "target": target,
            "seed": seed,
        },
    )
    if save is not None:
        result.save(save)
        record["save"] = str(save)
    if picture is not None:
        record["picture"] = _written(lambda: result.plot(picture))
    if export is not None:
        record["export"] = _written(lambda: result.export(export))
    if report is not None:
        record["report"] = str(write_report(record, result, report))
    if json is not None:
        write_json(record, json)
    show_training(record, stream=sys.stderr if str(json) == "-" else sys.stdout)
    end_training(
        str(record["status"]),
        is_interrupted=solver.is_interrupted,
        is_asked=tolerance is not None or target is not None,
    )


def _written(write: Callable[[], Path]) -> str:
    """The path of a file, or why it could not be written: the rest of a training is kept."""
    try:
        return str(write())
    except NotConvergedError as error:
        return f"none: {error}"


def end_training(status: str, *, is_interrupted: bool, is_asked: bool) -> None:
    """Exit with 130 after Ctrl-C and with 1 if a training failed.

    Args:
        status: Name of the status.
        is_interrupted: Whether Ctrl-C ended it.
        is_asked: Whether there was a tolerance or target; else it may come as far as it comes.
    """
    if is_interrupted:
        typer.echo("physim: interrupted", err=True)
        raise typer.Exit(INTERRUPTED)
    if status not in ("CONVERGED", "COMPLETE") and (is_asked or status != "STALLED"):
        raise typer.Exit(FAILURES)


def check_files(
    *,
    checkpoint: Path | None,
    save: Path | None,
    picture: Path | None,
    json: Path | None,
    report: Path | None = None,
    export: Path | None = None,
) -> None:
    """Refuse before the training what would fail after it.

    Raises:
        SettingsError: If a file has another ending, or stands where it cannot be written.
    """
    check_outputs(
        {
            "checkpoint": (checkpoint, _NETWORK),
            "save": (save, _NETWORK),
            "picture": (picture, _PICTURES),
            "report": (report, (".html",)),
            "export": (export, (".vtu", ".pvd", ".npz")),
        },
        json=json,
    )
    if picture is not None or report is not None:
        from solvers.figures import open_figure

        # Complains before the training if nothing can draw.
        open_figure()
