"""Pictures and films of smoke as PNG files, which every browser shows; animated ones are films."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from physim.fluid._grid import StaggeredGrid
from physim.fluid._obstacles import Obstacle
from solvers.core import (
    SettingsError,
    ShapeError,
    check_finite,
    check_output,
    check_positive,
    write_whole,
)

__all__ = ["film", "picture", "render"]

Image = NDArray[np.uint8]
_SKY = np.array([18, 24, 38], dtype=np.float64)
_SMOKE = np.array([236, 232, 222], dtype=np.float64)
_BODY = np.array([196, 92, 62], dtype=np.float64)


def render(
    grid: StaggeredGrid,
    smoke: Tensor,
    obstacles: Sequence[Obstacle] = (),
    *,
    thickness: float = 1.5,
    scale: int = 4,
) -> Image:
    """Draw smoke as it looks from the side, with the last axis up.

    Three axes are seen along the second one: light is absorbed on its way, and bodies hide what is
    behind them.

    Args:
        grid: The grid.
        smoke: Amount of smoke in every cell, shape ``(*shape,)``.
        obstacles: Bodies to draw.
        thickness: Absorption: how dense a unit of smoke looks across the whole depth, or in two
            axes in a cell.
        scale: Pixels a cell.

    Returns:
        Pixels, shape ``(height, width, 3)``.

    Raises:
        ShapeError: If the smoke does not fit the grid.
        NonFiniteError: If it holds NaN or infinity.

    Example:
        >>> grid = StaggeredGrid((6, 8))
        >>> render(grid, torch.ones(6, 8, dtype=torch.float64), scale=2).shape
        (16, 12, 3)
    """
    grid.check_cells("smoke", smoke)
    check_finite("smoke", smoke.detach())
    check_positive("scale", scale)
    amount = smoke.detach().clamp(min=0.0).double()
    centers = grid.centers()
    solid = torch.zeros(grid.shape, dtype=torch.float64)
    shade = torch.ones(grid.shape, dtype=torch.float64)
    for obstacle in obstacles:
        distance = obstacle.distance(centers).detach()
        inside = (0.5 - distance / grid.spacing).clamp(0.0, 1.0)
        solid = torch.maximum(solid, inside)
        slope = torch.gradient(distance, dim=0)[0] + 0 * distance
        light = 0.75 - 0.35 * slope / slope.abs().amax().clamp(min=1e-9)
        shade = torch.where(inside > 0, light, shade)
    if grid.axes == 2:
        amount, solid, shade = (field.unsqueeze(1) for field in (amount, solid, shade))
    depth = amount.shape[1]
    color = torch.zeros(grid.shape[0], grid.shape[-1], 3, dtype=torch.float64)
    clear = torch.ones(grid.shape[0], grid.shape[-1], dtype=torch.float64)
    white, body = torch.from_numpy(_SMOKE), torch.from_numpy(_BODY)
    for layer in range(depth):
        hidden = 1.0 - torch.exp(-thickness * amount[:, layer] / depth)
        color = color + (clear * hidden).unsqueeze(-1) * white
        clear = clear * (1.0 - hidden)
        part = clear * solid[:, layer]
        color = color + (part * shade[:, layer]).unsqueeze(-1) * body
        clear = clear * (1.0 - solid[:, layer])
    color = color + clear.unsqueeze(-1) * torch.from_numpy(_SKY)
    # Rows from the top; linear between the centres of cells.
    image = color.permute(2, 1, 0).flip(1)[None]
    larger = torch.nn.functional.interpolate(
        image, scale_factor=scale, mode="bilinear", align_corners=False
    )[0]
    pixels: Image = larger.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels


def picture(image: Image, path: str | Path) -> Path:
    """Write one image.

    Args:
        image: Pixels, shape ``(height, width, 3)``.
        path: File that ends in ``.png``.

    Returns:
        The path.

    Raises:
        SettingsError: If the ending is wrong or the folder does not exist.
    """
    return _write([image], path, frames_per_second=1.0)


def film(images: Sequence[Image], path: str | Path, *, frames_per_second: float = 25.0) -> Path:
    """Write a film that repeats, as an animated PNG; programs that know no films show its start.

    Args:
        images: Frames of one size, shape ``(height, width, 3)`` each.
        path: File that ends in ``.png``.
        frames_per_second: Speed.

    Returns:
        The path.

    Raises:
        SettingsError: If there is no frame, the ending is wrong or the folder does not exist.
        ShapeError: If frames differ in size.
    """
    return _write(images, path, frames_per_second=frames_per_second)


def _write(images: Sequence[Image], path: str | Path, *, frames_per_second: float) -> Path:
    target = check_output("path", path, (".png",))
    check_positive("frames_per_second", frames_per_second)
    if not images:
        raise SettingsError("images: got none, expected at least one frame")
    for number, image in enumerate(images):
        if image.shape != images[0].shape or image.ndim != 3 or image.shape[2] != 3:
            raise ShapeError(
                f"images[{number}]: got shape {image.shape}, expected (height, width, 3) and all "
                f"like the first, {images[0].shape}"
            )
    with write_whole(target) as partial:
        partial.write_bytes(_encode(images, round(1000 / frames_per_second)))
    return target


def _encode(images: Sequence[Image], delay: int) -> bytes:
    """The chunks of a PNG; with several frames an animation that repeats without end.

    Reference: W3C 2025, "Portable Network Graphics (PNG) Specification", third edition.
    """
    height, width, _ = images[0].shape
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    is_film = len(images) > 1
    if is_film:
        chunks.append(_chunk(b"acTL", struct.pack(">II", len(images), 0)))
    sequence = 0
    for number, image in enumerate(images):
        if is_film:
            control = (sequence, width, height, 0, 0, delay, 1000, 0, 0)
            chunks.append(_chunk(b"fcTL", struct.pack(">IIIIIHHBB", *control)))
            sequence += 1
        data = zlib.compress(_filtered(image), 6)
        if number == 0:
            chunks.append(_chunk(b"IDAT", data))
        else:
            chunks.append(_chunk(b"fdAT", struct.pack(">I", sequence) + data))
            sequence += 1
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, _chunk(b"IEND", b"")])


def _filtered(image: Image) -> bytes:
    """Rows as differences to the row above (filter 2), which compress well."""
    rows = image.reshape(image.shape[0], -1)
    differences: NDArray[Any] = rows.copy()
    differences[1:] -= rows[:-1]
    return np.concatenate([np.full((len(rows), 1), 2, np.uint8), differences], 1).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
