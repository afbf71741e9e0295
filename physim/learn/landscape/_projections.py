r"""Random maps from a few coordinates to all parameters, with columns of length one.

* dense: Gaussian entries, every column divided by its length; D d numbers.
* sparse: signs at random places with density :math:`1/\sqrt D`, columns divided by their length.
* Fastfood: blocks :math:`H G \Pi H B` with Walsh-Hadamard H of length :math:`L = 2^{\lceil\log_2
  d\rceil}`, random signs B, a permutation and Gaussian diagonal G, divided by
  :math:`\sqrt{L \sum G^2}` over all blocks; D numbers and :math:`D \log d` operations.

Lengths are over the whole parameter vector, not per layer. The Fastfood division makes columns of
length one over a whole number of blocks; cropping to D leaves them shorter, in the mean square by D
over that number of rows, which is a half for d just above half of D and close to one for few d.

References: Li et al. 2018, "Measuring the intrinsic dimension of objective landscapes", section 2;
Le, Sarlos & Smola 2013, "Fastfood: approximating kernel expansions in loglinear time".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_choice

__all__ = ["Projection", "random_projection"]

Projection = Literal["dense", "sparse", "fastfood"]


def random_projection(
    size: int,
    dimension: int,
    *,
    kind: Projection = "fastfood",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Callable[[Float[Tensor, " d"]], Float[Tensor, " n"]]:
    """Make a linear map from a subspace into the parameters.

    Args:
        size: Number of parameters D.
        dimension: Dimension d of the subspace, at most D.
        kind: ``"dense"``, ``"sparse"`` or ``"fastfood"``.
        seed: The map is a function of it, on every device: seed and coordinates are a compressed
            network.
        dtype: Type of the numbers.
        device: Where the map lives.

    Returns:
        A differentiable linear function ``(d,)`` to ``(D,)``.

    Raises:
        SettingsError: If the dimension is not between 1 and the number of parameters.

    Example:
        >>> project = random_projection(1000, 3, kind="dense")
        >>> round(float(project(torch.tensor([1.0, 0.0, 0.0]).double()).norm()), 9)
        1.0
    """
    check_choice("kind", kind, ("dense", "sparse", "fastfood"))
    if not 1 <= dimension <= size:
        raise SettingsError(
            f"dimension: got {dimension}, expected 1 to {size}, the number of parameters; a "
            "subspace has no more dimensions than the whole"
        )
    generator = torch.Generator().manual_seed(seed)
    build = {"dense": _dense, "sparse": _sparse, "fastfood": _fastfood}[kind]
    return build(size, dimension, generator, dtype, torch.device(device))


def _dense(
    size: int,
    dimension: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    matrix = torch.randn(size, dimension, generator=generator, dtype=dtype)
    matrix = (matrix / torch.linalg.vector_norm(matrix, dim=0)).to(device)
    return lambda z: matrix @ z


def _sparse(
    size: int,
    dimension: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    places = (torch.rand(size, dimension, generator=generator) < size**-0.5).nonzero()
    # An empty column would lose its coordinate.
    counts = torch.bincount(places[:, 1], minlength=dimension)
    empty = (counts == 0).nonzero()[:, 0]
    rows = torch.randint(0, size, (len(empty),), generator=generator)
    places = torch.cat([places, torch.stack([rows, empty], 1)])
    row, column = places.T.to(device)
    signs = 2.0 * torch.randint(0, 2, (len(row),), generator=generator).to(device, dtype) - 1.0
    values = signs / counts.clamp(min=1).to(device)[column].to(dtype).sqrt()
    return lambda z: z.new_zeros(size).index_add(0, row, values * z[column])


def _fastfood(
    size: int,
    dimension: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    length = 1 << max(0, (dimension - 1).bit_length())
    blocks = -(-size // length)
    signs = 2.0 * torch.randint(0, 2, (blocks, length), generator=generator).to(dtype) - 1.0
    order = torch.stack([torch.randperm(length, generator=generator) for _ in range(blocks)])
    gains = torch.randn(blocks, length, generator=generator, dtype=dtype)
    scale = 1.0 / math.sqrt(length * float(gains.square().sum()))
    signs, order, gains = signs.to(device), order.to(device), gains.to(device)

    def project(z: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(z, (0, length - dimension))
        mixed = _walsh_hadamard(padded * signs)
        mixed = torch.gather(mixed, 1, order) * gains
        return scale * _walsh_hadamard(mixed).reshape(-1)[:size]

    return project


def _walsh_hadamard(x: Tensor) -> Tensor:
    """Hadamard transform of the last axis, unnormalised, by halving."""
    length, half = x.shape[-1], 1
    while half < length:
        pairs = x.reshape(*x.shape[:-1], length // (2 * half), 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([first + second, first - second], -2).reshape(x.shape)
        half *= 2
    return x
