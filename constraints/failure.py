"""What a layer does with items that have no solution or were not solved.

The four words of every layer:

* ``"raise"`` (the default, in training too): an error that carries the solution;
* ``"warn"``: one warning for the batch, then as ``"mask"``;
* ``"mask"``: the best iterate, with zero gradient, counted in the report;
* ``"project"``: infeasible items are replaced by the nearest point, with its gradient; items that
  failed in another way raise. Layers without a notion of nearest point refuse this word.
"""

from __future__ import annotations

from typing import Literal, get_args

from solvers.core import Report, Status, apply_on_failure, check_choice

__all__ = ["FailurePolicy", "act_on_failure", "check_policy"]

FailurePolicy = Literal["raise", "warn", "mask", "project"]


def check_policy(on_failure: str, *, can_project: bool = True) -> None:
    """Check the word.

    Args:
        on_failure: What the user gave.
        can_project: Whether the layer knows a nearest point.

    Raises:
        SettingsError: With the words that are allowed.
    """
    words = get_args(FailurePolicy)
    check_choice("on_failure", on_failure, words if can_project else words[:-1])


def act_on_failure(
    report: Report,
    on_failure: FailurePolicy,
    *,
    solution: object,
    what: str,
    stacklevel: int = 2,
) -> None:
    """Raise, warn or stay silent about the items that failed.

    Under ``"project"`` the infeasible items have been dealt with, and the others raise.

    Args:
        report: How the items ended.
        on_failure: The policy.
        solution: What an error carries.
        what: Name of the layer for the message.
        stacklevel: Of the warning, seen from the caller.

    Raises:
        InfeasibleError: If every failed item is infeasible or unbounded.
        NotConvergedError: If an item failed in another way.
    """
    if on_failure != "project":
        apply_on_failure(
            report, on_failure, solution=solution, what=what, stacklevel=stacklevel + 1
        )
        return
    rest = report[report.status != Status.INFEASIBLE] if report.shape else report
    if report.shape or int(report.status) != Status.INFEASIBLE:
        apply_on_failure(rest, "raise", solution=solution, what=what)
