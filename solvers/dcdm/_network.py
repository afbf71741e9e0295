"""The network of the deep conjugate direction method: a residual in, a direction out."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from solvers.core import ShapeError, check_positive, load_checkpoint, save_checkpoint

__all__ = ["DirectionNetwork"]

_KIND = "dcdm.directions"
_SHIPPED = Path(__file__).parent / "weights" / "directions32.safetensors"


class DirectionNetwork(nn.Module):
    r"""A convolutional network on a grid with one level of pooling, as published.

    Convolutions of 3 cells a side with zeros around the grid; all but the first and the last layer
    are rectified and added in pairs. It sees residuals only, neither cells nor coefficients, and
    works on any grid, as well as it generalises.

    Args:
        channels: Channels of every layer.
        before: Convolutions before the pooling, an even number.
        coarse: Convolutions on the halved grid, an even number.
        after: Convolutions after it, an even number.

    Raises:
        SettingsError: If a number is not positive.

    Cost: with the defaults 97 457 weights and 61 000 multiplications a cell; a direction sees 21
    cells far.
    Reference: Kaneda, Akar, Chen, Trevino Kala, Hyde & Teran 2023, "A deep conjugate direction
    method for iteratively solving linear systems".

    Example:
        >>> network = DirectionNetwork(channels=2, before=2, coarse=2, after=2)
        >>> network(torch.ones(8, 8, 8)).shape
        torch.Size([8, 8, 8])
    """

    def __init__(self, *, channels: int = 16, before: int = 4, coarse: int = 6, after: int = 4):
        super().__init__()
        self.settings = {"channels": channels, "before": before, "coarse": coarse, "after": after}
        for name, number in self.settings.items():
            check_positive(name, number)
        self.first = nn.Conv3d(1, channels, 3, padding=1)
        self.before = nn.ModuleList([_Pair(channels) for _ in range(before // 2)])
        self.coarse = nn.ModuleList([_Pair(channels) for _ in range(coarse // 2)])
        self.after = nn.ModuleList([_Pair(channels) for _ in range(after // 2)])
        self.last = nn.Linear(channels, 1)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Propose directions.

        Args:
            r: Residuals of norm one, shape ``(..., nx, ny, nz)``.

        Raises:
            ShapeError: If there are fewer than three axes.
        """
        if r.ndim < 3:
            raise ShapeError(f"r: got shape {tuple(r.shape)}, expected (..., nx, ny, nz)")
        x = r.reshape(-1, 1, *r.shape[-3:])
        fine = self.first(x)
        for pair in self.before:
            fine = pair(fine)
        pairs = [min(2, size) for size in fine.shape[2:]]
        x = functional.avg_pool3d(fine, pairs, ceil_mode=True, count_include_pad=False)
        for pair in self.coarse:
            x = pair(x)
        x = functional.interpolate(x, size=fine.shape[2:], mode="nearest") + fine
        for pair in self.after:
            x = pair(x)
        result: Tensor = self.last(x.movedim(1, -1))
        return result.reshape(r.shape)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write settings and weights to a file.

        Args:
            path: The file; its folder must exist.
        """
        return save_checkpoint(path, self.state_dict(), kind=_KIND, metadata=self.settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> DirectionNetwork:
        """Read a network that `save` wrote.

        Args:
            path: The file; by default the weights that come with the package, trained on the box
                of 32 cells a side with open air on all sides.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is damaged or holds something else.
        """
        checkpoint = load_checkpoint(_SHIPPED if path is None else path, kind=_KIND)
        network = cls(**checkpoint.metadata)
        network.load_state_dict(dict(checkpoint.tensors))
        return network


class _Pair(nn.Module):
    """Two rectified convolutions and the way around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.one = nn.Conv3d(channels, channels, 3, padding=1)
        self.two = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.two(functional.relu(self.one(x)))) + x
