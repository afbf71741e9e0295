"""``physim train ritz``: networks that make the energy of a named problem least."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from physim.cli._report import write_json
from physim.cli._train import (
    Budget,
    Checkpoint,
    Json,
    Picture,
    ProblemName,
    Save,
    Seed,
    Settings,
    Target,
    Tolerance,
    check_files,
    end_training,
    parse_settings,
)

__all__ = ["ritz"]


def ritz(
    problem: ProblemName,
    *,
    settings: Settings = None,
    optimizer: Annotated[
        str,
        typer.Option(help="natural-gradient, self-scaled-broyden, lbfgs, adam or diffgrad."),
    ] = "natural-gradient",
    width: Annotated[int, typer.Option(help="Units of each hidden layer.")] = 32,
    depth: Annotated[int, typer.Option(help="Hidden layers.")] = 1,
    budget: Budget = 30.0,
    tolerance: Tolerance = None,
    target: Target = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    save: Save = None,
    picture: Picture = None,
    json: Json = None,
) -> None:
    """Make the energy of a problem least over a network.

    Exit code 1 if the tolerance or target was not met, 2 for bad input, 130 after Ctrl-C.
    """
    check_files(checkpoint=checkpoint, save=save, picture=picture, json=json)
    chosen = parse_settings(settings or [])
    from physim.cli._train_report import describe_training, show_training, time_reference
    from solvers.pde.problems import find_problem
    from solvers.pinn import MLP, DeepRitz

    found = find_problem(problem, **chosen)
    solver = DeepRitz(
        found, MLP(width=width, depth=depth), seed=seed,
        optimizer=optimizer,  # type: ignore[arg-type]
    )  # fmt: skip
    # a grid of many dimensions would not fit into memory
    reference_seconds = time_reference(found) if found.domain.dimension <= 3 else None
    result = solver.fit(
        budget, tolerance, target=target, checkpoint=checkpoint, on_failure="mask"
    )  # fmt: skip
    record = describe_training(
        found,
        result,
        reference_seconds=reference_seconds,
        settings={
            "network": "DeepRitz",
            "problem": problem,
            "set": chosen,
            "budget": budget,
            "tolerance": tolerance,
            "target": target,
            **solver.settings,
        },
    )
    record["energy"] = {"value": result.energy.value, "error": result.energy.error}
    if save is not None:
        record["save"] = str(result.save(save))
    if picture is not None:
        record["picture"] = str(result.plot(picture))
    if json is not None:
        write_json(record, json)
    stream = sys.stderr if str(json) == "-" else sys.stdout
    show_training(record, stream=stream)
    print(f"energy {result.energy}", file=stream)
    end_training(
        str(record["status"]),
        is_interrupted=solver.is_interrupted,
        is_asked=tolerance is not None or target is not None,
    )
