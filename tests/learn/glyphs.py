"""Ten drawn digits of 8 x 8 points, shifted, faded and noisy: a small classification problem."""

from __future__ import annotations

import torch
from torch import Tensor

_STROKES = {
    0: "..####.. .##..##. .#....#. .#....#. .#....#. .#....#. .##..##. ..####..",
    1: "...##... ..###... ...##... ...##... ...##... ...##... ...##... ..####..",
    2: "..####.. .#....#. ......#. .....#.. ...##... ..#..... .#...... .######.",
    3: "..####.. .#....#. ......#. ...###.. ......#. ......#. .#....#. ..####..",
    4: "....##.. ...#.#.. ..#..#.. .#...#.. .######. .....#.. .....#.. .....#..",
    5: ".######. .#...... .#...... .#####.. ......#. ......#. .#....#. ..####..",
    6: "...###.. ..#..... .#...... .#####.. .#....#. .#....#. .#....#. ..####..",
    7: ".######. ......#. .....#.. ....#... ....#... ...#.... ...#.... ...#....",
    8: "..####.. .#....#. .#....#. ..####.. .#....#. .#....#. .#....#. ..####..",
    9: "..####.. .#....#. .#....#. .#....#. ..#####. ......#. .....#.. ..###...",
}


def glyphs(
    count: int = 1800, *, noise: float = 0.25, shifted: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Images ``(count, 64)`` and labels ``(count,)``; a share of them is shifted by one point."""
    g = torch.Generator().manual_seed(seed)
    rows = [_STROKES[k].split() for k in range(10)]
    images = torch.tensor([[[float(c == "#") for c in row] for row in r] for r in rows])
    labels = torch.randint(0, 10, (count,), generator=g)
    moves = torch.rand(count, 1, generator=g) < shifted
    shifts = (moves * torch.randint(-1, 2, (count, 2), generator=g)).tolist()
    moved = torch.stack(
        [images[k].roll(s, (0, 1)) for k, s in zip(labels.tolist(), shifts, strict=True)]
    )
    strength = 0.6 + 0.4 * torch.rand(count, 1, 1, generator=g)
    drawn = strength * moved + noise * torch.randn(moved.shape, generator=g)
    return drawn.reshape(count, 64), labels
