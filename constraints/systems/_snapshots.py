"""The baseline that needs no network: interpolation between solutions that are known."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.core import ShapeError, check_finite

__all__ = ["interpolate_scattered"]


def interpolate_scattered(initial: Tensor, known: Tensor, solutions: Tensor) -> Tensor:
    """Interpolate solutions in any number of parameters, by radial functions.

    The interpolant is a constant and multiples of the distances to the known parameters: piecewise
    linear for one parameter.

    Args:
        initial: Parameters to predict for, or initial fields, shape ``(S, ...)``.
        known: Those with a solution, all different, shape ``(k, ...)``, at least two.
        solutions: Their solutions, shape ``(k, ...)``.

    Returns:
        Predictions of shape ``(S, ...)`` like the solutions.

    Raises:
        ShapeError: If there are fewer than two, or shapes differ.
        NonFiniteError: If something is not finite.

    Source: Duchon 1977, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces".

    Example:
        >>> known = torch.tensor([[0.0], [1.0], [3.0]])
        >>> interpolate_scattered(torch.tensor([[2.0]]), known, 5 * known).round(decimals=6)
        tensor([[10.]], dtype=torch.float64)
    """
    from scipy.interpolate import RBFInterpolator

    if len(known) < 2 or len(solutions) != len(known) or initial.shape[1:] != known.shape[1:]:
        raise ShapeError(
            f"known: got shape {tuple(known.shape)} with {len(solutions)} solutions for "
            f"{tuple(initial.shape)}, expected at least two with a solution each, and the shape of "
            "initial but for their number"
        )
    for name, tensor in (("initial", initial), ("known", known), ("solutions", solutions)):
        check_finite(name, tensor)
    places, new, values = (
        tensor.detach().double().flatten(1).numpy() for tensor in (known, initial, solutions)
    )
    found = RBFInterpolator(places, values, kernel="linear", degree=0)(new)
    return torch.from_numpy(found).reshape(len(initial), *solutions.shape[1:])
