"""Train the directions of the published method: ``python -m solvers.dcdm.train --help``.

The matrix is that of a box of cells with open air on all sides. Progress is shown, Ctrl-C writes
the checkpoint, ``--resume`` goes on from it. ``--start`` takes the weights of a network trained
before, for example on a smaller box.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from solvers.core import PhysimError, open_progress
from solvers.dcdm._network import DirectionNetwork
from solvers.dcdm._training import TrainingSettings, train_directions
from solvers.linear import PoissonOperator

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Of the command line; those of the process by default.

    Returns:
        Exit code: 0, or 2 for bad input.
    """
    default = TrainingSettings()
    parser = argparse.ArgumentParser(
        prog="python -m solvers.dcdm.train", description=(__doc__ or "").split("\n\n", 1)[0]
    )
    parser.add_argument("output", type=Path, help="file for the weights, .safetensors")
    parser.add_argument("--side", type=int, default=32, help="cells along each axis")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--rate", type=float, default=default.rate)
    parser.add_argument("--vectors", type=int, default=default.vectors, help="Ritz vectors")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--checkpoint", type=Path, help="by default beside the output")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    options = parser.parse_args(arguments)
    try:
        losses = _train(options)
    except (PhysimError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    tail = losses[-20:]
    if tail:
        print(f"loss {sum(tail) / len(tail):.4f} (mean of the last {len(tail)} steps)")
    print(f"wrote {options.output}")
    return 0


def _train(options: argparse.Namespace) -> list[float]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = DirectionNetwork() if options.start is None else DirectionNetwork.load(options.start)
    settings = TrainingSettings(
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        vectors=options.vectors,
        seed=options.seed,
    )
    A = PoissonOperator.from_cells(torch.zeros((options.side,) * 3), outside=2)
    beside = options.output.with_suffix(".checkpoint.safetensors")
    losses = train_directions(
        A,
        network,
        settings,
        progress=open_progress(options.steps, description="train", show=True),
        checkpoint=options.checkpoint or beside,
        is_resumed=options.resume,
    )
    network.save(options.output)
    return losses


if __name__ == "__main__":
    sys.exit(main())
