"""Is a linear map the adjoint of another?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solvers.core.testing._table import text_table

__all__ = ["check_adjoint"]


def check_adjoint(
    apply: Callable[[Tensor], Tensor],
    apply_adjoint: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    rtol: float = 1e-12,
    trials: int = 3,
    seed: int = 0,
) -> float:
    r"""Check :math:`\langle A x, y\rangle = \langle x, A^* y\rangle` on random vectors.

    The error is measured against :math:`\|Ax\| \|y\| + \|x\| \|A^*y\|`, because the inner product
    itself may be close to zero.

    Args:
        apply: The map ``A``.
        apply_adjoint: Its supposed adjoint.
        x: Any tensor with shape, type (real or complex) and device of the domain.
        y: The same for the range.
        rtol: Largest relative error.
        trials: Number of random pairs.
        seed: Of the random pairs.

    Returns:
        The largest relative error.

    Raises:
        AssertionError: If a trial exceeds ``rtol`` or is not finite, or if a result has not the
            shape of ``x`` or ``y``.

    Example:
        >>> A = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
        >>> x, y = A[0], A[:, 0]
        >>> check_adjoint(lambda x: A @ x, lambda y: A.T @ y, x, y) < 1e-15
        True
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for trial in range(trials):
        u, v = _random_like(x, generator), _random_like(y, generator)
        forward, backward = apply(u), apply_adjoint(v)
        if forward.shape != v.shape or backward.shape != u.shape:
            raise AssertionError(
                f"the map turns shape {tuple(u.shape)} into {tuple(forward.shape)}, expected "
                f"{tuple(v.shape)}; its adjoint turns {tuple(v.shape)} into "
                f"{tuple(backward.shape)}, expected {tuple(u.shape)}"
            )
        left, right = _inner(v, forward), _inner(backward, u)
        size = _length(forward) * _length(v) + _length(u) * _length(backward)
        error = 0.0 if size == 0 else abs(left - right) / size
        rows.append((trial, left, right, float(error)))
    errors = [row[-1] for row in rows]
    if not all(error <= rtol for error in errors):
        table = text_table(("trial", "<Ax, y>", "<x, A*y>", "relative error"), rows)
        raise AssertionError(f"not adjoint within rtol={rtol:g}:\n{table}")
    return max(errors)


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU so that a seed means the same numbers on every device.
    numbers = torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
    return numbers.to(tensor.device)


def _inner(a: Tensor, b: Tensor) -> complex | float:
    product: complex | float = torch.vdot(a.detach().flatten(), b.detach().flatten()).item()
    return product


def _length(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a.detach()))
