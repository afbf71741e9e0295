"""Whether a run fits into this machine, asked before it begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from solvers.core import SettingsError

if TYPE_CHECKING:
    from physim.model import Model

__all__ = ["check_size"]

_REPORTED = 9
"""Numbers per item and step beside configuration, velocity and control."""


def check_size(model: Model, *, steps: float, batch: int) -> None:
    """Refuse a run whose trajectory is larger than the machine's memory.

    Args:
        model: The model.
        steps: Number of steps, whole or not, however large.
        batch: Number of items.

    Raises:
        SettingsError: If it is.
    """
    needed = 8.0 * (model.nq + model.nv + model.nu + _REPORTED) * max(1.0, steps) * batch
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise SettingsError(
            f"{steps:.3g} steps of {batch} item(s) make a trajectory of {needed / 2**30:.3g} GiB, "
            f"more than the {memory / 2**30:.3g} GiB of this machine; give a shorter --duration, a "
            "longer --timestep or a smaller --batch"
        )
