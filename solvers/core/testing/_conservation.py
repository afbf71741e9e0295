"""Does a quantity stay constant, or never grow, along a trajectory?"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from solvers.core._checks import check_choice
from solvers.core._errors import ShapeError
from solvers.core.testing._table import SHOWN_ROWS, text_table

__all__ = ["check_conservation"]

Law = Literal["constant", "non-increasing"]


def check_conservation(
    quantity: Tensor,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    law: Law = "constant",
    name: str = "quantity",
) -> float:
    r"""Check a conservation law along the leading axis, time.

    ``"constant"`` asks for :math:`|Q_t - Q_0| \le a + r \max_s |Q_s|` at every time ``t``;
    ``"non-increasing"`` asks for :math:`Q_{t+1} - Q_t \le a + r \max_s |Q_s|`.

    Args:
        quantity: Values over time, shape ``(T, ...)`` with ``T`` at least 2, any unit.
        rtol: Relative tolerance ``r``.
        atol: Absolute tolerance ``a``, in the unit of the quantity.
        law: The law to hold.
        name: What the quantity is, for the message.

    Returns:
        The largest violation: drift, or growth in one step (zero if there is none).

    Raises:
        ShapeError: If there are fewer than two times.
        SettingsError: If ``law`` is not one of the two words.
        AssertionError: With a table of the worst times and items. NaN breaks every law.

    Example:
        >>> check_conservation(torch.tensor([1.0, 1.0, 1.0]), rtol=1e-9)
        0.0
    """
    check_choice("law", law, get_args(Law))
    if quantity.ndim == 0 or quantity.shape[0] < 2:
        raise ShapeError(
            f"{name}: got shape {tuple(quantity.shape)}, expected (T, ...) with T >= 2, time first"
        )
    values = quantity.detach().to("cpu", torch.float64)
    size = values.abs().amax(0)
    before = values[:1].expand_as(values[1:]) if law == "constant" else values[:-1]
    change = values[1:] - before
    violation = change.abs() if law == "constant" else change.clamp(min=0)
    tolerance = (atol + rtol * size).expand_as(violation)
    bad = ~(violation <= tolerance)
    if not bool(bad.any()):
        return float(violation.max())
    excess = torch.where(bad, violation - tolerance, 0.0).nan_to_num(nan=torch.inf)
    worst = excess.flatten().argsort(descending=True)[: min(SHOWN_ROWS, int(bad.sum()))]
    rows = []
    for flat in worst:
        time, *item = (int(i) for i in torch.unravel_index(flat, violation.shape))
        place = (time, *item)
        rows.append(
            (
                time + 1,
                tuple(item),
                float(before[place]),
                float(values[1:][place]),
                float(tolerance[place]),
            )
        )
    earlier = "at time 0" if law == "constant" else "one step before"
    table = text_table(("time", "item", earlier, "then", "allowed change"), rows)
    raise AssertionError(
        f"{name} is not {law} at {int(bad.sum())} of {bad.numel()} places; the worst:\n{table}"
    )
