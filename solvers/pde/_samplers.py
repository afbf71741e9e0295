"""Points in a domain: evenly random, low-discrepancy, stratified, or where the residual is large.

Sources: Sobol points, I. Sobol (1967); Latin hypercubes, M. McKay, R. Beckman and W. Conover
(1979); residual-based adaptive distribution (RAD) and refinement (RAR), C. Wu, M. Zhu, Q. Tan,
Y. Kartha and L. Lu (2023), equations 2 and 3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers.core import (
    SettingsError,
    check_choice,
    check_count,
    check_finite,
    check_kind,
    check_number,
    check_positive,
    check_shape,
)
from solvers.pde._domain import Domain

__all__ = ["Sampler", "adaptive_weights", "refine", "resample", "sample", "unit_points"]

Sampler = Literal["uniform", "sobol", "latin"]
_SAMPLERS = ("uniform", "sobol", "latin")
_MAX_ROUNDS = 30


def unit_points(
    sampler: Sampler,
    count: int,
    dimension: int,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n d"]:
    """Spread points over the unit cube.

    Args:
        sampler: ``"uniform"`` (independent), ``"sobol"`` (scrambled) or ``"latin"`` (one point in
            each of ``count`` layers along every axis).
        count: Number of points.
        dimension: Number of axes.
        seed: Seed, if there is no generator.
        generator: Source of random numbers; its state goes on.

    Returns:
        Points, float64.

    Example:
        >>> points = unit_points("latin", 4, 2)
        >>> (4 * points).floor().sort(0).values[:, 0].tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    check_choice("sampler", sampler, _SAMPLERS)
    check_count("count", count)
    check_count("dimension", dimension)
    source = random_source(seed, generator)
    if sampler == "sobol":
        scramble = int(torch.randint(2**31 - 1, (), generator=source))
        engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=scramble)
        return engine.draw(count, dtype=torch.float64)
    random = torch.rand((count, dimension), generator=source, dtype=torch.float64)
    if sampler == "uniform":
        return random
    layers = [torch.randperm(count, generator=source) for _ in range(dimension)]
    return (torch.stack(layers, -1) + random) / count


def sample(
    domain: Domain,
    count: int,
    *,
    sampler: Sampler = "sobol",
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n d"]:
    """Spread points over a domain, evenly by volume.

    Args:
        domain: The domain.
        count: Number of points.
        sampler: See :func:`unit_points`. In a domain that is no box the points outside are left
            out and drawn again, which keeps the density but not the layers of ``"latin"``.
        seed: Seed, if there is no generator.
        generator: Source of random numbers; its state goes on.

    Returns:
        Points of shape ``(count, d)``.

    Raises:
        SettingsError: If the domain fills too little of its bounding box to be hit.

    Example:
        >>> from solvers.pde import Box
        >>> points = sample(Box(x=(0, 2), t=(0, 1)), 64)
        >>> points.shape, bool(points[:, 0].max() > 1.5)
        (torch.Size([64, 2]), True)
    """
    check_kind("domain", domain, Domain, "a solvers.pde domain, as Box(x=(0, 1))")
    check_count("count", count)
    source = random_source(seed, generator)
    found: list[Tensor] = []
    missing, share = count, 1.0
    for _ in range(_MAX_ROUNDS):
        draw = max(math.ceil(missing / share), 1)
        points = domain.scale(unit_points(sampler, draw, domain.dimension, generator=source))
        points = points[domain.contains(points)]
        found.append(points[:missing])
        missing -= len(found[-1])
        if not missing:
            return torch.cat(found)
        share = max(0.9 * len(points) / draw, share / 8, 1e-2)
    raise SettingsError(
        f"domain: {domain!r} fills too little of its bounding box, {count - missing} of {count} "
        "points were found; choose tighter bounds"
    )


def adaptive_weights(
    residual: Float[Tensor, " n"], *, exponent: float = 1.0, floor: float = 1.0
) -> Float[Tensor, " n"]:
    r"""Compute probabilities :math:`p \propto |r|^k / \overline{|r|^k} + c`.

    Args:
        residual: Residual ``r`` at candidate points.
        exponent: ``k``; 0 is uniform, larger follows the residual more closely.
        floor: ``c``; larger is closer to uniform.

    Returns:
        Probabilities that sum to one.

    Raises:
        NonFiniteError: If a residual is not finite.
    """
    check_shape("residual", residual, "n")
    check_finite("residual", residual)
    for name, value in (("exponent", exponent), ("floor", floor)):
        check_number(name, value)
        check_positive(name, value, allow_zero=True)
    size = residual.detach().abs()
    # Divided by the largest first, so that no power leaves the range of the number type.
    power = (size / size.max().clamp(min=torch.finfo(size.dtype).tiny)) ** exponent
    weights = power / power.mean().clamp(min=torch.finfo(size.dtype).tiny) + floor
    return weights / weights.sum()


def resample(
    candidates: Float[Tensor, "m d"],
    residual: Float[Tensor, " m"],
    count: int,
    *,
    exponent: float = 1.0,
    floor: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n d"]:
    """Draw points by residual (RAD), without repetition.

    Args:
        candidates: Points to draw from, a few times ``count``.
        residual: Residual at the candidates.
        count: Number of points to draw.
        exponent: See :func:`adaptive_weights`.
        floor: See :func:`adaptive_weights`.
        generator: Source of random numbers.

    Returns:
        The points drawn.
    """
    _check_candidates(candidates, residual)
    check_count("count", count)
    if count > len(candidates):
        raise SettingsError(
            f"count: got {count} of {len(candidates)} candidates, expected no more than these"
        )
    weights = adaptive_weights(residual, exponent=exponent, floor=floor)
    rows: Int[Tensor, " n"] = torch.multinomial(weights, count, generator=generator)
    return candidates[rows]


def refine(
    points: Float[Tensor, "n d"],
    candidates: Float[Tensor, "m d"],
    residual: Float[Tensor, " m"],
    count: int,
) -> Float[Tensor, "k d"]:
    """Add the candidates of largest residual (RAR).

    Args:
        points: Present points.
        candidates: New points to choose from.
        residual: Residual at the candidates.
        count: Number of points to add.

    Returns:
        Old points and new ones.
    """
    _check_candidates(candidates, residual)
    check_shape("points", points, f"n {candidates.shape[1]}")
    check_finite("residual", residual)
    check_count("count", count, least=0)
    rows = residual.detach().abs().topk(min(count, len(candidates))).indices
    return torch.cat([points, candidates[rows]])


def random_source(seed: int, generator: torch.Generator | None) -> torch.Generator:
    """Source of random numbers: a generator that was given, or a new one.

    Raises:
        SettingsError: If the seed is no whole number of 0 or more, or the generator is none.
    """
    if generator is not None:
        check_kind("generator", generator, torch.Generator, "a torch.Generator or None")
        return generator
    check_count("seed", seed, least=0)
    return torch.Generator().manual_seed(int(seed))


def _check_candidates(candidates: Tensor, residual: Tensor) -> None:
    sizes = check_shape("candidates", candidates, "m d")
    check_shape("residual", residual, "m", sizes=sizes)
