"""Are two arrays equal within a tolerance, and if not, where do they differ?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvers.core.testing._table import SHOWN_ROWS, text_table

__all__ = ["assert_close_report"]


def assert_close_report(
    actual: Any,
    expected: Any,
    *,
    rtol: float,
    atol: float = 0.0,
    name: str = "value",
) -> float:
    r"""Check :math:`|x_i - y_i| \le a + r\,|y_i|` for every entry; NaN is equal to nothing.

    Args:
        actual: The values ``x`` in question: tensor, array, nested list or number.
        expected: The values ``y`` to trust, of the same shape.
        rtol: Relative tolerance ``r``.
        atol: Absolute tolerance ``a``, in the unit of the values.
        name: What the values are, for the message.

    Returns:
        The largest absolute difference.

    Raises:
        AssertionError: If shapes differ, or with a table of the entries furthest from tolerance.

    Example:
        >>> assert_close_report([1.0, 2.0], [1.0, 2.0 + 1e-12], rtol=1e-9) < 1e-11
        True
    """
    x, y = _as_float64(actual), _as_float64(expected)
    if x.shape != y.shape:
        raise AssertionError(f"{name}: got shape {tuple(x.shape)}, expected {tuple(y.shape)}")
    # Equal infinities differ by NaN, hence the first test.
    difference = torch.where(x == y, 0.0, (x - y).abs())
    # Relative to infinity everything would be close.
    tolerance = atol + rtol * torch.where(y.isfinite(), y.abs(), 0.0)
    bad = ~(difference <= tolerance)
    if not bool(bad.any()):
        return float(difference.max()) if difference.numel() else 0.0
    excess = torch.where(bad, difference / tolerance, 0.0).nan_to_num(nan=torch.inf)
    worst = excess.flatten().argsort(descending=True)[: min(SHOWN_ROWS, int(bad.sum()))]
    rows = []
    for flat in worst:
        index = tuple(int(i) for i in torch.unravel_index(flat, x.shape))
        rows.append(
            (
                index,
                float(x[index]),
                float(y[index]),
                float(difference[index]),
                float(tolerance[index]),
            )
        )
    table = text_table(("index", "actual", "expected", "difference", "allowed"), rows)
    raise AssertionError(
        f"{name}: {int(bad.sum())} of {x.numel()} entries differ by more than "
        f"rtol={rtol:g}, atol={atol:g}; the worst:\n{table}"
    )


def _as_float64(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().to("cpu", torch.float64)
