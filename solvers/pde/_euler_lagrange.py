r"""Problems stated as the least of an energy; their equation is derived.

For :math:`E(u) = \int L(x, u, \nabla u, \ldots)\,dx` a minimiser satisfies

.. math:: \sum_\alpha (-1)^{|\alpha|}\, D^\alpha \frac{\partial L}{\partial (D^\alpha u)} = 0,

the Euler-Lagrange equation (Gelfand and Fomin 1963). The density is recorded once, and
both derivatives, by its arguments and along the axes, are taken of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

from solvers.core import SettingsError, check_callable, check_kind, check_names
from solvers.derivatives import trace_residual
from solvers.kernels import Symbol, evaluate, reverse
from solvers.pde._arguments import argument_names, call_by_name, check_known, with_arguments
from solvers.pde._conditions import Condition
from solvers.pde._domain import Domain
from solvers.pde._jet import plain
from solvers.pde._problem import Problem

__all__ = ["variational_problem"]


def variational_problem(
    name: str,
    *,
    domain: Domain,
    density: Callable[..., Any],
    fields: Sequence[str] = ("u",),
    coefficients: Mapping[str, float] | None = None,
    unknown: Sequence[str] = (),
    conditions: Sequence[Condition] = (),
    reference: Callable[..., Any] | None = None,
) -> Problem:
    r"""State that fields make the energy :math:`\int L\,dx` least.

    Args:
        name: Name of the problem.
        domain: Where it lives.
        density: L, a function of fields, coordinates and coefficients by name, written with
            operators and :mod:`solvers.pde.functions`; inside it ``u.x`` is a derivative.
        fields: Names of the unknown fields.
        coefficients: Numbers of the energy by name.
        unknown: Coefficients to be found.
        conditions: What holds on the boundary.
        reference: Solution as a function of coordinates and coefficients, if it is known.

    Returns:
        The problem, with ``density`` as its energy and the Euler-Lagrange equation of each field as
        its residuals.

    Raises:
        SettingsError: If a name is unknown, the density cannot be recorded, or a condition is
            missing.

    Example:
        >>> from solvers.pde import Box, Dirichlet, variational_problem
        >>> membrane = variational_problem(
        ...     "membrane", domain=Box(x=(0, 1), y=(0, 1)),
        ...     density=lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - u,
        ...     conditions=[Dirichlet(u=0.0)],
        ... )
        >>> membrane.derivatives["u"][-2:]  # of -u_xx - u_yy - 1
        ((0, 2), (2, 0))
    """
    check_kind("domain", domain, Domain, "a solvers.pde domain, as Box(x=(0, 1))")
    check_callable("density", density, "a function, as in lambda u, x: 0.5 * u.x * u.x - u")
    check_kind("coefficients", coefficients, (Mapping, NoneType), "numbers by name, or None")
    fields = check_names("fields", fields)
    numbers, axes = dict(coefficients or {}), domain.axes
    check_names("coefficients", numbers)
    names = (*fields, *axes, *numbers)
    check_known(argument_names(density), names, what=f"{name}: density")
    return Problem(
        name,
        domain=domain,
        fields=fields,
        residual=with_arguments(_Equations(name, density, fields, axes, numbers), names),
        coefficients=numbers,
        unknown=check_names("unknown", unknown),
        conditions=conditions,
        energy=density,
        reference=reference,
    )


class _Equations:
    """The Euler-Lagrange equations as a function of fields, coordinates and coefficients."""

    def __init__(
        self,
        name: str,
        density: Callable[..., Any],
        fields: tuple[str, ...],
        axes: tuple[str, ...],
        numbers: Mapping[str, float],
    ) -> None:
        def recorded(f: Mapping[str, Any], x: Mapping[str, Any], c: Mapping[str, Any]) -> Any:
            return call_by_name(density, {**f, **x, **c}, what=f"{name}: density")

        try:
            trace = trace_residual(
                recorded, fields=fields, coordinates=axes, coefficients=list(numbers)
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise SettingsError(
                f"{name}: the density cannot be recorded ({error}); write it with operators and "
                "solvers.pde.functions, which take numbers, tensors and symbols alike"
            ) from error
        known = list(trace.outputs.items())
        slopes = reverse([(trace.residuals[0], 1.0)], [symbol for _, symbol in known])
        totals: list[Any] = [0.0] * len(fields)
        for ((field, index), _), slope in zip(known, slopes, strict=True):
            if isinstance(slope, Symbol):
                slope = trace.derivative(slope, index)
            elif index:
                continue  # the derivative of a constant
            totals[field] = totals[field] + (-1.0) ** len(index) * slope
        self._fields, self._axes, self._numbers = fields, axes, tuple(numbers)
        self._terms = totals
        self._derivatives = list(trace.outputs)

    def __call__(self, *values: Any) -> Any:
        count, places = len(self._fields), len(self._axes)
        jets, x = values[:count], values[count : count + places]
        environment = {
            "n": [self._look_up(jets[field], index) for field, index in self._derivatives],
            "x": list(x),
            "s": list(values[count + places :]),
        }
        terms = evaluate(self._terms, environment)
        return terms[0] if len(terms) == 1 else dict(zip(self._fields, terms, strict=True))

    def _look_up(self, jet: Any, index: tuple[int, ...]) -> Any:
        return getattr(jet, "".join(self._axes[i] for i in index)) if index else plain(jet)
