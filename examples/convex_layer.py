"""Can a layer learn the cost by which someone else decides?

Someone spreads a budget over five assets: as much return as possible less a risk, no short sales, a
bound on the spread. We see the market and the decisions, not the risk matrix. A layer written
in cvxpy makes the same kind of decision, and its risk matrix is fitted by gradient descent through
the solve.

Run ``python examples/convex_layer.py --help``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cvxpy
import numpy as np
import torch
from torch import Tensor

from constraints import ConvexLayer
from solvers.figures import draw_curves, open_figure, save_figure

ASSETS = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the example measured."""

    before: float  # root mean square error of decisions in unseen markets
    after: float
    failures: int  # solves that did not converge, over the whole training


def portfolio() -> ConvexLayer:
    """Decisions by expected returns and a square root of the risk matrix."""
    x = cvxpy.Variable(ASSETS)
    returns, root = cvxpy.Parameter(ASSETS), cvxpy.Parameter((ASSETS, ASSETS))
    objective = cvxpy.Maximize(returns @ x - cvxpy.sum_squares(root @ x))
    rows = [cvxpy.sum(x) == 1, x >= 0, cvxpy.norm(x - 1 / ASSETS) <= 0.6]
    return ConvexLayer(cvxpy.Problem(objective, rows), [returns, root], [x], on_failure="mask")


def main(
    iterations: int = 150, markets: int = 64, seed: int = 0, output: Path = Path("out")
) -> Result:
    """Fit the risk matrix.

    Args:
        iterations: Steps of the optimizer.
        markets: Decisions that are seen.
        seed: Seed of markets and risk.
        output: Folder for the picture.

    Returns:
        What was measured.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layer = portfolio()
    identity = torch.eye(ASSETS, dtype=torch.float64)
    hidden = identity + 0.4 * normal(ASSETS, ASSETS)
    seen, unseen = normal(markets, ASSETS), normal(markets, ASSETS)
    with torch.no_grad():
        decisions, others = layer(seen, hidden)[0][0], layer(unseen, hidden)[0][0]
    root = identity.clone().requires_grad_()
    optimizer = torch.optim.Adam([root], lr=3e-2)
    errors, failures = [], 0
    for _ in range(iterations + 1):
        (said,), report = layer(seen, root)
        failures += int((~report.converged).sum())
        loss = (said - decisions).square().mean()
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            away = layer(unseen, root)[0][0] - others
        errors.append([float(loss.detach()) ** 0.5, float(away.square().mean()) ** 0.5])
        optimizer.step()
    history = np.array(errors)
    print(f"solved by: {layer.backend}; solves that failed: {failures}")
    print(f"decisions in unseen markets off by {history[0, 1]:.2e} before")
    print(f"                                   {history[-1, 1]:.2e} after")
    output.mkdir(parents=True, exist_ok=True)
    figure, axes = open_figure(width=6.0, heights=[3.5])
    draw_curves(
        axes[0],
        np.arange(iterations + 1.0),
        {"seen markets": history[:, 0], "unseen markets": history[:, 1]},
        x_label="iteration",
        y_label="error of decisions",
        is_logarithmic=True,
    )
    save_figure(figure, output / "convex_layer.png")
    print(f"{output / 'convex_layer.png'}  ({time.perf_counter() - began:.0f} s)")
    return Result(before=history[0, 1], after=history[-1, 1], failures=failures)


if __name__ == "__main__":
    # Work this small loses time to threads.
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--markets", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out"))
    main(**vars(parser.parse_args()))
