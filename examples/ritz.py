"""Make energies least: a soap film, a nonlinear field in ten dimensions, and descent with its rate.

Writes out/ritz_film.png and out/ritz_descent.png. Less than a minute on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

from solvers.pde import Box, Dirichlet, problems, variational_problem
from solvers.pde.functions import cosh, sqrt
from solvers.pinn import MLP, DeepRitz, Estimate, SobolevDescent, UnrolledDescent, gauss_legendre


def catenoid(x, y):  # type: ignore[no-untyped-def]
    """The film between two rings, a quarter of it as a graph (Euler 1744)."""
    return sqrt(cosh(x) * cosh(x) - y * y)


film = variational_problem(
    "soap film",
    domain=Box(x=(-1, 1), y=(-0.5, 0.5)),
    density=lambda u, x, y: sqrt(1 + u.x * u.x + u.y * u.y),
    conditions=[Dirichlet(u=catenoid)],
    reference=catenoid,
)


class Result(NamedTuple):
    """What was found.

    Attributes:
        film: Relative L2 error of the film.
        ten: The same of the field in ten dimensions.
        rate: Factor a step of descent on sines, and the one that theory foresees.
        unrolled: Factor a step of descent with networks.
    """

    film: float
    ten: Estimate
    rate: tuple[float, float]
    unrolled: float


def main(seconds: float = 8.0, output: Path = Path("out")) -> Result:
    """Solve the three; each training gets so many seconds, ten dimensions twice as many."""
    torch.set_num_threads(1)
    found = DeepRitz(film, seed=0).fit(seconds, target=2e-6, on_failure="mask")
    area, error = found.energy.value, found.relative_l2.value
    print(f"soap film: area {area:.8f}, relative L2 error {error:.1e}")

    many = DeepRitz(problems.NonlinearElliptic(10), MLP(width=16, depth=1), seed=0)
    ten = many.fit(2 * seconds, target=0.015, on_failure="mask")
    print(f"ten dimensions: energy {ten.energy}, relative L2 error {ten.relative_l2}")

    problem = problems.NonlinearDiffusion(2)
    sines = SobolevDescent(problem, modes=10, step=0.2).solve()
    rule = gauss_legendre(problem.domain, 40)
    networks = {
        width: UnrolledDescent(problem, width=width, step=0.2, rule=rule).run(20)
        for width in (8, 32, 128)
    }
    norms = networks[128].gradient_norms
    unrolled = float((norms[8] / norms[2]) ** (1 / 6))
    print(f"descent: factor {sines.rate:.3f} a step, foreseen {sines.contraction:.3f}", end="")
    print(f", with networks {unrolled:.3f}")

    output.mkdir(parents=True, exist_ok=True)
    found.plot(output / "ritz_film.png")
    draw_descent(sines.gradient_norms, networks, output / "ritz_descent.png")
    print(f"pictures: {output / 'ritz_film.png'}, {output / 'ritz_descent.png'}")
    return Result(error, ten.relative_l2, (sines.rate, sines.contraction), unrolled)


def draw_descent(exact, networks, path):  # type: ignore[no-untyped-def]
    """Gradient norm against steps, exact and by neurons a step."""
    from solvers.figures import draw_curves, open_figure, save_figure

    figure, axes = open_figure(width=7.0, heights=[4.5], columns=1)
    norms = {"sines": exact[:20]}
    norms |= {f"{width} neurons": run.gradient_norms for width, run in networks.items()}
    curves = {name: (values / values[0]).numpy() for name, values in norms.items()}
    draw_curves(axes[0], torch.arange(20).numpy(), curves, x_label="step", is_logarithmic=True)
    save_figure(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each training")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    main(options.seconds, options.output)
