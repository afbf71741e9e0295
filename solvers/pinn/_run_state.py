"""A training on disk: everything that the next step depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from solvers.core import CheckpointError, load_checkpoint, save_checkpoint
from solvers.optim import SelfScaledBroyden
from solvers.pinn._collocation import Collocation

__all__ = ["read_run", "write_run"]

_KIND = "pinn-run"


def write_run(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    search: SelfScaledBroyden,
    collocation: Collocation,
    history: list[dict[str, float]],
) -> None:
    """Write the state of a run, whole or not at all."""
    state = search.state_dict()
    tensors = {f"search.{k}": v for k, v in state.items() if isinstance(v, torch.Tensor)}
    numbers = {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)}
    tensors |= {f"points.{k}": v for k, v in collocation.state_dict().items()}
    metadata = {"settings": dict(settings), "numbers": numbers, "history": history}
    save_checkpoint(path, tensors, kind=_KIND, metadata=metadata)


def read_run(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    search: SelfScaledBroyden,
    collocation: Collocation,
    history: list[dict[str, float]],
) -> None:
    """Go on from a file, if it is there.

    Raises:
        CheckpointError: If the file was written with other settings.
    """
    if not Path(path).exists():
        return
    checkpoint = load_checkpoint(path, kind=_KIND)
    found = checkpoint.metadata["settings"]
    if found != dict(settings):
        changed = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
        raise CheckpointError(
            f"{path}: was written with other values of {', '.join(changed)}; give the same "
            "settings or another file"
        )
    state = dict(checkpoint.metadata["numbers"])
    points: dict[str, torch.Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        kind, key = name.split(".", 1)
        (state if kind == "search" else points)[key] = tensor
    collocation.load_state_dict(points)
    search.load_state_dict(state)
    history[:] = checkpoint.metadata["history"]
