"""Checkers of mathematical laws, for our tests and for yours.

Each one raises ``AssertionError`` with a table of the worst places, and returns the error it found
so that a test can state it.
"""

from __future__ import annotations

from solvers.core.testing._adjoint import check_adjoint
from solvers.core.testing._close import assert_close_report
from solvers.core.testing._conservation import check_conservation
from solvers.core.testing._gradients import check_gradients
from solvers.core.testing._order import check_order

__all__ = [
    "assert_close_report",
    "check_adjoint",
    "check_conservation",
    "check_gradients",
    "check_order",
]
