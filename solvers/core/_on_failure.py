"""One switch for what happens when items of a batch do not converge."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

from jaxtyping import Bool
from torch import Tensor

from solvers.core._checks import check_choice
from solvers.core._errors import InfeasibleError, NotConvergedError, NumericalWarning
from solvers.core._report import Report
from solvers.core._status import Status

__all__ = ["OnFailure", "apply_on_failure"]

OnFailure = Literal["raise", "warn", "mask"]


def apply_on_failure(
    report: Report,
    on_failure: OnFailure = "raise",
    *,
    solution: object = None,
    what: str = "the solve",
    stacklevel: int = 2,
) -> Bool[Tensor, "*batch"]:
    """Act on a report as the caller of a solve asked for.

    ``"raise"`` stops with an error, ``"warn"`` gives one warning for the whole batch, ``"mask"``
    is silent. In the last two cases the good items go on: use the returned mask to keep failed
    items out of losses and gradients.

    Args:
        report: How the items ended.
        on_failure: ``"raise"``, ``"warn"`` or ``"mask"``.
        solution: What the error carries, usually the :class:`Solution`; the report by default.
        what: Name of the solve for the message, for example ``"ConjugateGradient"``.
        stacklevel: Of the warning, as in :func:`warnings.warn`, seen from the caller: 2 names
            the line that called the function which calls this one.

    Returns:
        Which items converged.

    Raises:
        InfeasibleError: If ``on_failure="raise"`` and every failed item is infeasible or unbounded.
        NotConvergedError: If ``on_failure="raise"`` and an item failed in another way.
        SettingsError: If ``on_failure`` is not one of the three words.
    """
    check_choice("on_failure", on_failure, get_args(OnFailure))
    converged = report.converged
    if on_failure == "mask" or report.all_converged:
        return converged
    failed = report.status[~converged]
    message = (
        f"{what} did not converge for {failed.numel()} of {report.status.numel()} items.\n{report}"
    )
    if on_failure == "warn":
        warnings.warn(message, NumericalWarning, stacklevel=stacklevel + 1)
        return converged
    has_no_solution = (failed == Status.INFEASIBLE) | (failed == Status.UNBOUNDED)
    kind = InfeasibleError if bool(has_no_solution.all()) else NotConvergedError
    raise kind(
        f'{message}\nTo go on with the good items pass on_failure="warn" or "mask".',
        solution=report if solution is None else solution,
    )
