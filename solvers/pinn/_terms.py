"""Residuals of a problem and of its conditions, as programs for an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.derivatives import Field, Layers, ModuleLayers, ResidualProgram, trace_residual
from solvers.kernels import evaluate, reverse
from solvers.pde import Condition, ConditionPoints, Problem, sample
from solvers.pinn._ansatz import Ansatz
from solvers.pinn._given import function_of, is_sought

__all__ = ["ConditionTerms", "condition_program", "interior_program", "natural_scales"]

_PROBES = 64


class _Derivatives(Mapping[tuple[int, ...], Any]):
    """A field's derivatives by how often each axis is differentiated."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def __getitem__(self, index: tuple[int, ...]) -> Any:
        axes = tuple(axis for axis, order in enumerate(index) for _ in range(order))
        return self._field.derivative(axes) if axes else self._field

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        raise TypeError("derivatives are made when they are asked for and cannot be listed")

    def __len__(self) -> int:
        raise TypeError("derivatives are made when they are asked for and cannot be counted")


def _residual_of(problem: Problem) -> Any:
    def residual(fields: Mapping[str, Any], x: Mapping[str, Any], c: Mapping[str, Any]) -> Any:
        values: Any = {name: _Derivatives(field) for name, field in fields.items()}
        return problem.residual_terms(values, x, c)

    return residual


def interior_program(
    problem: Problem, ansatz: Ansatz, layers: Layers | ModuleLayers
) -> ResidualProgram:
    """Residuals of the equations."""
    return ResidualProgram(
        _residual_of(problem),
        layers,
        fields=problem.fields,
        coordinates=problem.domain.axes,
        probe=sample(problem.domain, _PROBES),
        coefficients=problem.coefficients,
        unknown=problem.unknown,
        transform=ansatz.transform,
        embedding=ansatz.embedding,
    )


def natural_scales(problem: Problem) -> Tensor:
    """One over the size of each residual when fields of order one vary over half the domain.

    Returns:
        Shape ``(equations,)``.
    """
    axes = problem.domain.axes
    trace = trace_residual(
        _residual_of(problem), fields=problem.fields, coordinates=axes,
        coefficients=list(problem.coefficients),
    )  # fmt: skip
    points = sample(problem.domain, _PROBES)
    generator = torch.Generator().manual_seed(0)
    half = (problem.domain.upper - problem.domain.lower) / 2
    sizes = {index: float(torch.prod(1.0 / half[list(index)])) for _, index in trace.outputs}
    n = torch.randn(_PROBES, len(trace.outputs), generator=generator, dtype=torch.float64)
    for k, (_, index) in enumerate(trace.outputs):
        n[:, k] *= sizes[index]
    environment = {"x": points, "n": n, "s": list(problem.coefficients.values())}
    scales = []
    for term in trace.residuals:
        slopes = evaluate(reverse([(term, 1.0)], list(trace.outputs.values())), environment)
        largest = max(
            float(torch.as_tensor(slope).to(torch.float64).square().mean().sqrt()) * sizes[index]
            for slope, (_, index) in zip(slopes, trace.outputs, strict=True)
        )
        scales.append(1.0 / max(largest, 1e-12))
    return torch.tensor(scales, dtype=torch.float64)


@dataclass(frozen=True)
class ConditionTerms:
    r"""A condition as linear terms :math:`\sum_k a_k \partial_k u - g` at points.

    Attributes:
        names: One per term.
        wanted: Field and multi-index of each derivative.
        factors: ``a``, shape ``(n, terms, derivatives)``.
        given: ``g``, shape ``(n, terms)``.
        points: Shape ``(n, d)``.
        sought: Functions in place of ``g``, by number of the term, where it depends on what is to
            be found.
    """

    names: tuple[str, ...]
    wanted: tuple[tuple[str, tuple[int, ...]], ...]
    factors: Tensor
    given: Tensor
    points: Tensor
    sought: Mapping[int, Any]

    @classmethod
    def of(cls, problem: Problem, condition: Condition, where: ConditionPoints) -> ConditionTerms:
        """Read the terms off a condition by what it makes of fields that are zero or one.

        Raises:
            SettingsError: If the condition is not about single points, as periodicity.
        """
        if where.partners is not None:
            raise SettingsError(
                f"condition {condition.label!r} compares pairs of points, expected one that the "
                "ansatz takes on or that is about single points"
            )
        indices = condition.derivatives(problem.domain)
        names = condition.bound_fields(problem.fields)
        wanted = tuple((name, index) for name in names for index in indices)
        zeros = torch.zeros(len(where.points), dtype=torch.float64)

        def terms(one: tuple[str, tuple[int, ...]] | None) -> dict[str, Tensor]:
            values = {
                name: {i: zeros + 1.0 if (name, i) == one else zeros for i in indices}
                for name in problem.fields
            }
            found: dict[str, Tensor] = problem.condition_terms(condition, where, values)
            return found

        base = terms(None)
        given = -torch.stack(list(base.values()), dim=1)
        factors = torch.stack(
            [torch.stack(list(terms(one).values()), dim=1) + given for one in wanted], dim=2
        )
        values = [*getattr(condition, "values", {}).values()]
        values += getattr(condition, "rates", {}).values()
        sought = {e: value for e, value in enumerate(values) if is_sought(problem, value)}
        return cls(tuple(base), wanted, factors, given, where.points, sought)

    @property
    def columns(self) -> Tensor:
        """Points with factors and given values beside them: coordinates of the program."""
        return torch.cat([self.points, self.factors.flatten(1), self.given], dim=1)


def condition_program(
    problem: Problem, ansatz: Ansatz, layers: Layers | ModuleLayers, terms: ConditionTerms
) -> ResidualProgram:
    """Residuals of a condition that does not hold by construction."""
    _, count, width = terms.factors.shape
    factor_names = [f"_factor_{e}_{k}" for e in range(count) for k in range(width)]
    given_names = [f"_given_{e}" for e in range(count)]
    used = (terms.factors != 0.0).any(dim=0)

    def given(e: int, x: Mapping[str, Any], c: Mapping[str, Any]) -> Any:
        if e not in terms.sought:
            return x[f"_given_{e}"]
        value = function_of(problem, terms.sought[e], c)
        try:
            return value([x[axis] for axis in problem.domain.axes])
        except (TypeError, ValueError, AttributeError) as error:
            raise SettingsError(
                f"condition {terms.names[e]!r} depends on {', '.join(problem.unknown)}, which is "
                f"to be found, and cannot be recorded ({error}); write it with operators and "
                "solvers.pde.functions"
            ) from error

    def residual(fields: Mapping[str, Any], x: Mapping[str, Any], c: Mapping[str, Any]) -> Any:
        results = []
        for e in range(count):
            total: Any = -given(e, x, c)
            for k, (name, index) in enumerate(terms.wanted):
                if bool(used[e, k]):
                    total = total + x[f"_factor_{e}_{k}"] * _Derivatives(fields[name])[index]
            results.append(total)
        return results

    return ResidualProgram(
        residual,
        layers,
        fields=problem.fields,
        coordinates=[*problem.domain.axes, *factor_names, *given_names],
        probe=terms.columns[:_PROBES],
        coefficients=problem.coefficients,
        unknown=problem.unknown,
        transform=ansatz.transform,
        embedding=ansatz.embedding,
    )
