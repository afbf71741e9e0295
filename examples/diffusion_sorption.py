"""Obey an equation softly, hard, or by experts: errors beside the baselines, and one picture.

A network learns basis functions for diffusion with sorption without seeing any solution. Softly, it
is trained until its own residual is small; hard, coefficients of its functions are fitted to the
equation each time it is asked; by experts, each quarter of space has coefficients of its own, held
together where they meet.

Run ``python examples/diffusion_sorption.py --help``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import physim
from constraints.systems import diffusion_sorption as ds
from constraints.systems import relative_errors
from solvers.figures import draw_curves, open_figure, save_figure

ARMS = {
    "soft": ds.Arm(functions=1),
    "hard, 128 functions": ds.Arm(functions=128),
    "4 experts apart": ds.Arm(functions=32, experts=4, is_local=False),
    "4 experts held": ds.Arm(functions=32, experts=4, is_held=True),
}


def main(steps: int = 10, output: Path = Path("out")) -> dict[str, float]:
    """Train the arms and compare them.

    Args:
        steps: Steps of training of each arm.
        output: Folder for the picture.

    Returns:
        Mean relative error by name.
    """
    began = time.perf_counter()
    test = torch.linspace(0.01, 0.19, 8, dtype=torch.float64)
    clock = time.process_time()
    solution = ds.reference(test)
    classical = (time.process_time() - clock) / len(test)
    errors: dict[str, float] = {}
    shown: dict[str, Tensor] = {"reference": solution}
    print(f"{'':28s} untrained  trained   worst  training [s]  one field [ms]")
    for name, arm in ARMS.items():
        before = relative_errors(ds.train(arm, steps=0).predict(test), solution).mean()
        fit = ds.train(arm, steps=steps)
        clock = time.process_time()
        shown[name] = fit.predict(test)
        milliseconds = 1e3 * (time.process_time() - clock) / len(test)
        found = relative_errors(shown[name], solution)
        errors[name] = float(found.mean())
        print(
            f"{name:28s} {before:9.2%} {found.mean():8.2%} {found.max():7.2%} {fit.seconds:13.1f}"
            f" {milliseconds:15.1f}"
        )
    for count in (3, 9):
        known = torch.linspace(0, 0.2, count, dtype=torch.float64)
        guess = ds.interpolate_snapshots(test, known, ds.reference(known))
        name = f"{count} solutions, interpolated"
        errors[name] = float(relative_errors(guess, solution).mean())
        print(f"{name:28s} {'':9s} {errors[name]:8.2%}")
    print(f"{'LSODA, 1024 cells':28s} {'':40s} {1e3 * classical:15.1f}")

    output.mkdir(parents=True, exist_ok=True)
    try:
        figure, axes = open_figure(width=12.0, heights=[4.0], columns=3)
        x = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
        for axis, moment in zip(axes, (1, 10, 50), strict=True):
            curves = {name: u[4, :, moment].numpy() for name, u in shown.items()}
            reference = curves.pop("reference")
            draw_curves(axis, x.numpy(), curves, x_label="x [m]", y_label="concentration")
            axis.plot(x.numpy(), reference, "k--", linewidth=1.0, label="reference")
            axis.set_ylim(-0.1, 1.1)
            axis.set_title(f"day {500 * moment / 50:.0f}", fontsize="medium")
            axis.legend(frameon=False, fontsize="small").set_visible(moment == 1)
        print(save_figure(figure, output / "diffusion_sorption.png"))
    except physim.MissingExtraError as error:
        print(f"no picture: {error}")
    print(f"{time.perf_counter() - began:.0f} s")
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.steps, options.output)
