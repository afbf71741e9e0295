"""Training of direction networks: the loss, the loop, and files to go on from."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    CheckpointError,
    Progress,
    SettingsError,
    catch_interrupt,
    check_positive,
    load_checkpoint,
    save_checkpoint,
)
from solvers.dcdm._network import DirectionNetwork
from solvers.dcdm._ritz import RitzVectors
from solvers.linear import LinearOperator

__all__ = ["TrainingSettings", "direction_loss", "train_directions"]

_KIND = "dcdm.training"
_WARM_UP = 50


def direction_loss(
    A: LinearOperator, r: Float[Tensor, "..."], f: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    r"""Mean of :math:`\|r - \alpha A f\|^2` with the step of the line search along ``f``.

    :math:`\alpha = \langle f, r\rangle / \langle f, A f\rangle` minimises the error in the norm of
    ``A``, so the scale of ``f`` does not matter. No solution is needed.

    Args:
        A: Symmetric positive definite operator.
        r: Residuals of unit norm, shape ``(..., *domain)``.
        f: Directions proposed for them.

    Reference: Kaneda et al. 2023, the loss of the method.
    """
    axes = tuple(range(-len(A.domain), 0))
    Af = A.apply(f)
    curvature = (f * Af).sum(axes, keepdim=True)
    alpha = (f * r).sum(axes, keepdim=True) / curvature.clamp(min=torch.finfo(f.dtype).tiny)
    return (r - alpha * Af).square().sum(axes).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How to train.

    Args:
        steps: Steps of Adam in all.
        batch: Right-hand sides a step.
        rate: Step length, warmed up over 50 steps and annealed along a cosine to a fiftieth.
        vectors: Ritz vectors of the training set.
        clip: Largest norm of a gradient.
        seed: Of weights, Ritz vectors and right-hand sides.
        save_every: Steps between checkpoints.

    Raises:
        SettingsError: If a number is not positive.
    """

    steps: int = 1000
    batch: int = 8
    rate: float = 1e-3
    vectors: int = 800
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rate", "vectors", "clip", "save_every"):
            check_positive(name, getattr(self, name))


def train_directions(
    A: LinearOperator,
    network: DirectionNetwork,
    settings: TrainingSettings,
    *,
    progress: Progress,
    checkpoint: str | os.PathLike[str] | None = None,
    is_resumed: bool = False,
) -> list[float]:
    """Train a network on one matrix, in place.

    Ctrl-C finishes the running step, writes the checkpoint and ends the call.

    Args:
        A: The matrix, a grid of three axes.
        network: The network.
        settings: How to train.
        progress: Where to show loss and rate.
        checkpoint: File to write now and then; a later call with ``is_resumed`` goes on from it
            with the same numbers as an uninterrupted one.
        is_resumed: Read the checkpoint first.

    Returns:
        The loss of every step of this call.

    Raises:
        SettingsError: If the grid does not have three axes.
        CheckpointError: If the checkpoint comes from other settings.
    """
    if len(A.domain) != 3:
        raise SettingsError(f"A: got a domain of {A.domain}, expected a grid of three axes")
    single = A.detach().to(dtype=torch.float32)
    ritz = RitzVectors(A, min(settings.vectors, A.size), seed=settings.seed)
    adam = torch.optim.Adam(network.parameters(), lr=settings.rate)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    state = _State(network, adam, generator, settings)
    first = state.read(checkpoint) if is_resumed and checkpoint is not None else 0
    losses: list[float] = []
    with progress, catch_interrupt() as interrupt:
        for step in range(first, settings.steps):
            for group in adam.param_groups:
                group["lr"] = settings.rate * _annealed(step, settings.steps)
            r = ritz.sample(settings.batch, generator)
            loss = direction_loss(single, r, single.mask(network(r)))
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            adam.step()
            losses.append(float(loss.detach()))
            progress.update(step + 1, loss=losses[-1])
            is_last = step + 1 == settings.steps or interrupt.is_requested
            if checkpoint is not None and (is_last or (step + 1) % settings.save_every == 0):
                state.write(checkpoint, step + 1)
            if interrupt.is_requested:
                break
    return losses


def _annealed(step: int, steps: int) -> float:
    """Part of the full step length."""
    fall = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / _WARM_UP) * (0.02 + 0.98 * fall)


class _State:
    """All that the next step depends on, to and from a file."""

    def __init__(
        self,
        network: DirectionNetwork,
        adam: torch.optim.Adam,
        generator: torch.Generator,
        settings: TrainingSettings,
    ):
        self.network, self.adam, self.generator = network, adam, generator
        self.settings = {**asdict(settings), **network.settings}

    def write(self, path: str | os.PathLike[str], step: int) -> Path:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors["generator"] = self.generator.get_state()
        for index, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        metadata = {"step": step, "settings": self.settings}
        return save_checkpoint(path, tensors, kind=_KIND, metadata=metadata)

    def read(self, path: str | os.PathLike[str]) -> int:
        checkpoint = load_checkpoint(path, kind=_KIND)
        written = checkpoint.metadata["settings"]
        if written != self.settings:
            other = sorted(k for k in self.settings if written.get(k) != self.settings[k])
            raise CheckpointError(
                f"{path}: written with other settings ({', '.join(other)}); repeat those, or start "
                "anew with another file"
            )
        tensors = checkpoint.tensors
        weights = {k[8:]: v for k, v in tensors.items() if k.startswith("network.")}
        self.network.load_state_dict(weights)
        self.generator.set_state(tensors["generator"])
        state = self.adam.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = tensor
        self.adam.load_state_dict({**state, "state": moments})
        return int(checkpoint.metadata["step"])
