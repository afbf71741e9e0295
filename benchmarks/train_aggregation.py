"""Search the nine numbers of `AggregationRule`: ``python benchmarks/train_aggregation.py``.

An evolution strategy: nine candidates a generation around a mean, ranked by the mean logarithm of
the steps on fresh problems of seven families (plates are held out), with a quarter of the worst
one. A generation takes a few seconds; the best numbers so far are printed. Ctrl-C ends it in order.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from dcdm_families import FAMILIES, build_family

from solvers.core import Status, catch_interrupt
from solvers.linear import AggregationMultigrid, AggregationRule, ConjugateGradient

__all__ = ["main"]

_NAMES = tuple(AggregationRule.__slots__)
_LIMIT = 120
_CANDIDATES, _PARENTS = 9, 3


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    # Positive numbers vary in their logarithms, parts in their logits.
    mean = np.array([0.0, 0.0, -3.0, -3.0, -3.0, 0.0, 0.0, -1.1, 0.0])
    width, end = 0.35, time.monotonic() + 60 * options.minutes
    families = [name for name in FAMILIES if name != "plates"]
    with catch_interrupt() as interrupt:
        generation = 0
        while time.monotonic() < end and not interrupt.is_requested:
            seeds = rng.integers(10, 10_000, len(families))
            problems = [
                build_family(name, options.side, int(seed))
                for name, seed in zip(families, seeds, strict=True)
            ]
            candidates = [mean, *(mean + width * rng.normal(size=(_CANDIDATES - 1, 9)))]
            costs = [_cost(_decode(candidate), problems) for candidate in candidates]
            best = np.argsort(costs)[:_PARENTS]
            mean = np.average([candidates[i] for i in best], axis=0, weights=[3, 2, 1])
            width = max(0.06, 0.97 * width)
            generation += 1
            print(f"{generation}: mean {costs[0]:.3f}, best {min(costs):.3f}", flush=True)
    print(_decode(mean))


def _decode(point: np.ndarray) -> AggregationRule:
    positive = np.exp(point)
    part = 1.0 / (1.0 + np.exp(-point))
    values = [*positive[:6], *part[6:]]
    return AggregationRule(**dict(zip(_NAMES, map(float, values), strict=True)))


def _cost(rule: AggregationRule, problems: list) -> float:
    solver = ConjugateGradient(
        preconditioner=AggregationMultigrid(rule=rule, cycle="V"), max_iterations=_LIMIT
    )
    logs = []
    for A, b in problems:
        outcome = solver.prepare(A).run(b, None)
        is_good = int(outcome.status) == Status.CONVERGED
        logs.append(np.log(int(outcome.iterations) if is_good else 1.5 * _LIMIT))
    return float(np.mean(logs) + 0.25 * np.max(logs))


if __name__ == "__main__":
    main()
