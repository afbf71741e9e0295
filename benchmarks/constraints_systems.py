"""How do arms and baselines compare on whole systems, at one budget of CPU time for all arms?

Diffusion with sorption for constants and for profiles of five parameters, and plane vorticity on a
torus. Errors are relative in the mean square over space and time, against finer grids, for initial
conditions that no arm was trained on; mean and spread over seeds. Beside the arms stand baselines
without a network: interpolation between solutions that are known, as many as problems were solved
in training, and the classical solver by itself. One thread, CPU time. ``--only REGEX`` trains the
arms whose "system: arm" it matches.
"""

from __future__ import annotations

import math
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from record import Column, Result, Size
from torch import Tensor

from constraints.systems import (
    diffusion_sorption,
    interpolate_scattered,
    navier_stokes,
    relative_errors,
)
from solvers.core import NotConvergedError, NumericalWarning

__all__ = ["run"]

TITLE = "Systems: error of arms and baselines"
SECONDS = {"tiny": 0.0, "small": 10.0, "full": 120.0}
SEEDS = {"tiny": 1, "small": 3, "full": 3}
TESTS = {"tiny": 1, "small": 4, "full": 8}
MOST_SNAPSHOTS = {"tiny": 4, "small": 100, "full": 400}
SAMPLES = 4
BLOWN_UP = 10.0
"""Error of a prediction that left all bounds."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A system with a family of initial conditions.

    Attributes:
        name: What the table calls it.
        family: Initial conditions.
        module: Where the system is.
        arms: Ways of obeying its equation.
        draw: Draws initial conditions.
        solve: The classical solver.
        others: Baselines of its own: their predictions by name.
        coefficients: Of an arm, all experts together.
    """

    name: str
    family: str
    module: Any
    arms: Mapping[str, Any]
    draw: Callable[[int, torch.Generator], Tensor]
    solve: Callable[[Tensor], Tensor]
    others: Mapping[str, Callable[[Tensor], Tensor]]
    coefficients: Callable[[Any], int]


def run(size: Size, seed: int = 0, only: str = "") -> Result:
    """Train every arm, and put the baselines beside them."""
    rows: list[Row] = []
    verdict = []
    for case in _chosen(only):
        own = list(_rows(_shrink(case) if size == "tiny" else case, size, seed))
        rows += own
        verdict.append(_judge(case, own))
    if not rows:
        raise SystemExit(f"--only {only!r} matches no arm")
    return Result(
        title=TITLE,
        columns=(
            Column("system", "system"),
            Column("arm", "arm"),
            Column("coefficients", "coefficients", "d"),
            Column("untrained", "error untrained", ".2%"),
            Column("trained", "error trained", ".2%"),
            Column("least", "of best seed", ".2%"),
            Column("most", "of worst seed", ".2%"),
            Column("worst", "worst", ".2%"),
            Column("steps", "steps", "d"),
            Column("iterations", "iterations", ".1f"),
            Column("train", "training [s]", ".3g"),
            Column("predict", "one field [s]", ".2g"),
            Column("note", "failed", ""),
        ),
        rows=rows,
        settings={
            "budget": SECONDS[size],
            "seeds": SEEDS[size],
            "samples": SAMPLES,
            "only": only,
        },
        verdict=verdict,
    )


def _cases() -> list[Case]:
    ds, ns = diffusion_sorption, navier_stokes
    sorption = {
        "soft": ds.Arm(functions=1),
        "hard, 128": ds.Arm(functions=128),
        "4 experts x 32, apart": ds.Arm(functions=32, experts=4, is_local=False),
        "4 experts x 32, held": ds.Arm(functions=32, experts=4, is_held=True),
        "2 experts x 64, held": ds.Arm(functions=64, experts=2, is_held=True),
        "hard, 128, width 128": ds.Arm(functions=128, width=128),
        "2 experts x 64, held, width 128": ds.Arm(functions=64, experts=2, is_held=True, width=128),
    }
    vorticity = {
        "soft": ns.Arm(is_soft=True),
        "hard, 32": ns.Arm(),
        "4 experts x 32, apart": ns.Arm(experts=(2, 2)),
        "4 experts x 32, held": ns.Arm(experts=(2, 2), is_held=True),
    }
    return [
        *(
            Case(
                name=f"diffusion-sorption, {family}",
                family=family,
                module=ds,
                arms=sorption,
                draw=lambda count, g, family=family: ds.draw_initial(
                    count, family=family, generator=g
                ),
                solve=ds.reference,
                others={"LSODA, 128 cells": lambda initial: ds.reference(initial, cells=128)},
                coefficients=lambda arm: arm.functions * arm.experts,
            )
            for family in ("constant", "waves")
        ),
        Case(
            name="navier-stokes, smooth",
            family="smooth",
            module=ns,
            arms=vorticity,
            draw=lambda count, g: ns.initial_fields(count, cells=64, generator=g),
            solve=lambda initial: ns.reference(initial, points=32),
            others={
                "spectral, 32 x 32": lambda initial: ns.reference(initial[:, ::2, ::2], steps=250),
                "initial field": lambda initial: initial[:, None, ::2, ::2].expand(-1, 11, -1, -1),
            },
            coefficients=lambda arm: (
                1 if arm.is_soft else arm.fields * arm.degrees * arm.experts[0] * arm.experts[1]
            ),
        ),
    ]


def _chosen(only: str) -> Iterator[Case]:
    """The cases with those of their arms that are asked for."""
    for case in _cases():
        arms = {
            name: arm for name, arm in case.arms.items() if re.search(only, f"{case.name}: {name}")
        }
        if arms:
            yield replace(case, arms=arms)


def _shrink(case: Case) -> Case:
    """As small as it may be."""
    small: dict[str, Any] = {"width": 8, "points": 256}
    if case.module is navier_stokes:
        small |= {"slabs": 10, "fields": 4}
    return replace(case, arms={name: replace(arm, **small) for name, arm in case.arms.items()})


def _rows(case: Case, size: Size, seed: int) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(12345)
    test = case.draw(TESTS[size], generator)
    solution, classical = _timed(case.solve, test)
    seen = test[:, ::2, ::2] if case.module is navier_stokes else test
    solved = 0
    for name, arm in case.arms.items():
        row = _train(case, arm, size, seed, seen, solution)
        solved = max(solved, row["steps"] * SAMPLES) if name.startswith("hard") else solved
        yield {"system": case.name, "arm": name, **row}
    for count in sorted({min(n, MOST_SNAPSHOTS[size]) for n in (20, solved or 20)}):
        known = case.draw(count, torch.Generator().manual_seed(seed))
        solutions, seconds = _timed(case.solve, known)
        places = (one if one.ndim > 1 else one[:, None] for one in (test, known))
        errors = relative_errors(interpolate_scattered(*places, solutions), solution)
        yield {
            "system": case.name, "arm": f"{count} solutions, interpolated",
            "trained": float(errors.mean()), "worst": float(errors.max()),
            "train": seconds * count,
        }  # fmt: skip
    for name, solve in case.others.items():
        found, seconds = _timed(solve, test)
        errors = relative_errors(found, solution)
        yield {
            "system": case.name, "arm": name, "trained": float(errors.mean()),
            "worst": float(errors.max()), "predict": seconds,
        }  # fmt: skip
    yield {"system": case.name, "arm": "classical solver", "trained": 0.0, "predict": classical}


def _train(case: Case, arm: Any, size: Size, seed: int, test: Tensor, solution: Tensor) -> Row:
    """One arm over the seeds, as many steps as the budget holds."""
    options = {"family": case.family, "samples": SAMPLES}
    steps = _affordable(case, arm, size, options)
    before, after, fits, note = [], [], [], ""
    for number in range(seed, seed + SEEDS[size]):
        try:
            untrained = case.module.train(arm, steps=0, seed=number, family=case.family)
            before.append(_error(untrained, test, solution)[0])
            fit = case.module.train(arm, steps=steps, seed=number, **options)
            after.append(_error(fit, test, solution))
            fits.append(fit)
        except NotConvergedError as error:
            note += f"seed {number}: {str(error).split(chr(10), 1)[0]} "
    if not fits:
        return {"coefficients": case.coefficients(arm), "steps": steps, "note": note}
    iterations = [count for fit in fits for count in fit.iterations]
    means = [mean for mean, _, _ in after]
    return {
        "note": note,
        "coefficients": case.coefficients(arm),
        "untrained": statistics.median(before),
        "trained": statistics.median(means),
        "least": min(means),
        "most": max(means),
        "worst": max(worst for _, worst, _ in after),
        "steps": steps,
        "iterations": statistics.mean(iterations) if iterations else None,
        "train": statistics.mean(fit.seconds for fit in fits),
        "predict": statistics.mean(seconds for _, _, seconds in after),
    }


def _affordable(case: Case, arm: Any, size: Size, options: dict[str, Any]) -> int:
    """Steps that the budget holds; the first ones load and compile."""
    try:
        for steps in (1, 1 if size == "tiny" else 3):
            trial = case.module.train(arm, steps=steps, **options)
    except NotConvergedError:
        return 1
    return max(1, round(SECONDS[size] * len(trial.losses) / trial.seconds))


def _error(fit: Any, test: Tensor, solution: Tensor) -> tuple[float, float, float]:
    """Mean and worst relative error, and the time of a field."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        found, seconds = _timed(fit.predict, test)
    errors = relative_errors(found, solution).nan_to_num(BLOWN_UP).clamp(max=BLOWN_UP)
    return float(errors.mean()), float(errors.max()), seconds


def _timed(solve: Callable[[Tensor], Tensor], initial: Tensor) -> tuple[Tensor, float]:
    """What a solver finds, and its CPU time for a field."""
    began = time.process_time()
    found = solve(initial)
    return found, (time.process_time() - began) / len(initial)


def _judge(case: Case, rows: list[Row]) -> str:
    errors = {row["arm"]: row.get("trained") or math.inf for row in rows}
    best = min(case.arms, key=lambda name: errors[name])
    known = [row for row in rows if "interpolated" in row["arm"]][-1]
    arms = ", ".join(f"{name} {errors[name]:.1%}" for name in case.arms)
    return (
        f"{case.name}: {arms}: best arm {best}; {known['arm']} {known['trained']:.1%}; the "
        f"classical solver takes {rows[-1]['predict']:.2g} s for a field."
    )
