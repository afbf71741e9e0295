"""``physim simulate``: run a model and keep what came out."""

from __future__ import annotations

import math
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physim.cli._errors import FAILURES, INTERRUPTED
from physim.cli._models import find_model
from physim.cli._outputs import check_outputs
from solvers.core import PhysimWarning, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from physim.model import Model

__all__ = ["simulate"]

_OUTPUT = (".npz", ".h5", ".hdf5")
_KINDS = ("zero", "random", "keyframe")
_SECONDS = 5.0
_VIEW = (".html", ".htm", ".png", ".svg", ".pdf")


def simulate(
    model: Annotated[
        str, typer.Argument(help="MJCF or URDF file, or a gymnasium model such as hopper.")
    ],
    *,
    duration: Annotated[
        float | None,
        typer.Option(help="Simulated seconds; 5, or the length of the controls file."),
    ] = None,
    timestep: Annotated[
        float | None, typer.Option(help="Seconds per step; the model's own by default.")
    ] = None,
    controls: Annotated[
        str,
        typer.Option(
            help="zero, random, keyframe (that of --keyframe, held), or a .npz or .csv file with a "
            "row per step."
        ),
    ] = "zero",
    amplitude: Annotated[
        float, typer.Option(help="Part of the control range that random controls use.")
    ] = 1.0,
    hold: Annotated[float, typer.Option(help="Seconds for which a random control is held.")] = 0.05,
    batch: Annotated[int, typer.Option(min=1, help="Number of items.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of random controls.")] = 0,
    height: Annotated[
        float, typer.Option(help="Start this many metres above the file's pose.")
    ] = 0.0,
    keyframe: Annotated[
        str | None, typer.Option(help="Start from this key frame of the model.")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option(help="Central-path parameter of contact.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; what the batch can use by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Save the trajectory, .npz or .h5.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write settings and results as JSON; - for stdout.")
    ] = None,
    view: Annotated[
        Path | None, typer.Option(help="Make a film (.html) or a picture (.png, .svg, .pdf).")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the run here, and resume it if the file exists.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    floating_base: Annotated[
        bool, typer.Option("--floating-base", help="Let the root link of a URDF robot move freely.")
    ] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="Put a URDF robot over the plane z = 0.")
    ] = False,
    mesh_directory: Annotated[
        Path | None, typer.Option(help="Folder of the packages that a URDF robot's meshes are in.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that all files of the model lie in; its own folder.")
    ] = None,
    sensors: Annotated[
        bool, typer.Option("--sensors", help="Save what the model's sensors read as well.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a model that cannot be honoured in full.")
    ] = False,
) -> None:
    """Simulate a model with hard contact.

    Exit code 1 if an item failed, 2 for bad input, 130 after Ctrl-C (what is done is saved).
    """
    check_outputs(
        {"output": (output, _OUTPUT), "view": (view, _VIEW), "checkpoint": (checkpoint, ())},
        json=json,
        reads={"the model": model, "--controls": controls},
    )
    if sensors and output is None:
        raise SettingsError("--sensors saves readings to --output, which is missing; give a file")
    path = find_model(model)

    import physim
    from physim.cli._report import describe_run, show_run, write_json
    from physim.cli._simulation import fingerprint, simulate_in_chunks
    from physim.cli._size import check_size
    from physim.cli._start import lifted

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        # Each place of a model is named once, whatever the filters of the caller.
        warnings.simplefilter("always", PhysimWarning)
        loaded = physim.load_model(
            path,
            strict=strict,
            root=root,
            floating_base=floating_base,
            floor=floor,
            mesh_directory=mesh_directory,
        )
        build = partial(
            physim.Simulator,
            loaded,
            timestep=timestep,
            threads=threads or _useful_threads(batch),
        )
        simulator = build() if smoothing is None else build(smoothing=smoothing)
        # The length of a file of controls is known once it is read.
        seconds = duration or (_SECONDS if controls in _KINDS else 0.0)
        check_size(loaded, steps=seconds / simulator.timestep, batch=batch)
        if not math.isfinite(height):
            raise SettingsError(f"--height is {height}, expected a finite number of metres")
        start = simulator.initial_state(
            batch=batch, q=lifted(loaded, height, keyframe), keyframe=keyframe
        )
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    for note in notes:
        typer.echo(f"physim: warning: {note}", err=True)
    block, steps = _controls(
        loaded,
        controls,
        keyframe=keyframe,
        duration=duration,
        timestep=simulator.timestep,
        batch=batch,
        amplitude=amplitude,
        hold=hold,
        seed=seed,
    )
    outcome = simulate_in_chunks(
        simulator,
        start,
        block,
        steps=steps,
        checkpoint=checkpoint,
        every=every,
        identity={
            "timestep": simulator.timestep,
            "smoothing": simulator.smoothing,
            "steps": steps,
            "batch": batch,
            "inputs": fingerprint(path, start, block),
        },
    )
    settings = {
        "model": str(path),
        "duration": steps * simulator.timestep,
        "timestep": simulator.timestep,
        "controls": controls,
        "amplitude": amplitude,
        "hold": hold,
        "batch": batch,
        "seed": seed,
        "height": height,
        "keyframe": keyframe,
        "smoothing": simulator.smoothing,
        "threads": threads or _useful_threads(batch),
        "floating_base": floating_base,
        "floor": floor,
        "mesh_directory": None if mesh_directory is None else str(mesh_directory),
        "root": None if root is None else str(root),
        "sensors": sensors,
        "strict": strict,
    }
    record = describe_run(loaded, simulator, outcome, settings=settings, notes=notes)
    if outcome.trajectory is not None:
        if output is not None:
            read = simulator.sensors(outcome.trajectory) if sensors else None
            record["output"] = str(outcome.trajectory.save(output, sensors=read))
        if view is not None and not outcome.is_interrupted:
            from physim.cli._view import render

            record["view"] = str(render(loaded, outcome.trajectory, view))
    if json is not None:
        write_json(record, json)
    show_run(record, stream=sys.stderr if str(json) == "-" else sys.stdout)
    if outcome.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if record["summary"]["failures"] or record["summary"]["non_finite"]:
        raise typer.Exit(FAILURES)


def _controls(
    model: Model,
    kind: str,
    *,
    keyframe: str | None,
    duration: float | None,
    timestep: float,
    batch: int,
    amplitude: float,
    hold: float,
    seed: int,
) -> tuple[Tensor | None, int]:
    """Controls of the whole run and its number of steps."""
    from physim.cli._controls import random_controls, read_controls

    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise SettingsError(f"--duration is {duration}, expected a positive time in seconds")
    wanted = _SECONDS if duration is None else duration
    steps = max(1, round(wanted / timestep))
    if kind == "zero":
        return None, steps
    if kind == "keyframe":
        if keyframe is None:
            raise SettingsError("--controls keyframe holds those of --keyframe, which is missing")
        return model.keyframe(keyframe).control.expand(steps, batch, model.nu), steps
    if kind == "random":
        return (
            random_controls(
                model,
                steps=steps,
                batch=batch,
                timestep=timestep,
                hold=hold,
                amplitude=amplitude,
                seed=seed,
            ),
            steps,
        )
    block = read_controls(Path(kind), controls=model.nu, batch=batch)
    if duration is None:
        return block, len(block)
    if steps > len(block):
        raise SettingsError(
            f"--duration {duration:g} s is {steps} steps, but {kind} holds {len(block)}; give a "
            "shorter duration or leave it out"
        )
    return block[:steps], steps


def _useful_threads(batch: int) -> int:
    from solvers.kernels import block_count, lane_count

    return max(1, min(os.cpu_count() or 1, block_count(batch, lane_count())))
