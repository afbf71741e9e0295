r"""Residuals that are declared point by point on features of a basis.

A field :math:`u = \sum_n w_n b_n` enters a residual at a point through itself and some of its
derivatives, :math:`z_k = \sum_n \Phi_{kn} w_n` with the features
:math:`\Phi_{kn} = \partial_k b_n`. With :math:`q = \partial_z \tfrac12 r^2` and the small matrix
:math:`S = \partial_z q`,

.. math:: \nabla C = \sum \Phi^\top q, \qquad \nabla^2 C = \sum \Phi^\top S \Phi,
          \qquad H_\text{GN} = \sum \Phi^\top (\partial_z r)^\top (\partial_z r)\, \Phi ,

so only derivatives of the residual in its few arguments are ever taken, whatever the number of
unknowns, and points can be taken in chunks. For the gradients of
:math:`\langle v, \nabla C\rangle`, with :math:`y = \Phi v`,

.. math:: \bar\Phi = q\, v^\top + (S y)\, w^\top, \qquad \bar d = (\partial_d q)^\top y .
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError, Solution, check_positive
from solvers.nonlinear._least_squares import (
    LeastSquaresProblem,
    LevenbergMarquardt,
    NormalEquations,
)

__all__ = ["PointwiseProblem", "Residual", "gradients", "residual_rows"]

Residual = Callable[..., Any]
"""``residual(z_1, ..., z_k, d_1, ..., d_a)``: one number a point, or a tuple of them."""

_CHUNK = 2**18
"""Features that are looked at together."""


class PointwiseProblem(LeastSquaresProblem):
    r"""Problems :math:`\min_w \sum_f \beta_f \sum_i \tfrac12 |r_f(\Phi_{fi} w, d_{fi})|^2`.

    The weight of a family of rows is by default one over its number of points, so that the sum is a
    mean and does not change when points are added.

    Args:
        residuals: Residual of each family by name.
        features: Features of each family, shape ``(E, m, k, N)`` with ``m`` points.
        data: What a residual takes besides features, by family: tensors that broadcast to
            ``(E, m)``.
        weights: Factor of each family, 1 by default, on top of ``1 / m``.
        ridge: Factor of :math:`\tfrac12 |w|^2`.

    Raises:
        SettingsError: If families do not match, a number is out of range, or a tensor is not
            float64.
        ShapeError: If shapes do not fit together.

    Cost: one evaluation reads the features once; memory is that of a chunk of points.

    Example:
        >>> features = torch.tensor([[[[1.0]], [[2.0]]]], dtype=torch.float64)   # two points
        >>> problem = PointwiseProblem({"rows": lambda u: u * u - 4.0}, {"rows": features})
        >>> at = problem.normal_equations(torch.ones(1, 1, dtype=torch.float64), torch.arange(1))
        >>> at.cost.item()      # ((1 - 4)^2 + (4 - 4)^2) / 4
        2.25
    """

    def __init__(
        self,
        residuals: Mapping[str, Residual],
        features: Mapping[str, Tensor],
        data: Mapping[str, Sequence[Tensor]] | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        ridge: float = 0.0,
    ):
        check_positive("ridge", ridge, allow_zero=True)
        data = data or {}
        _check_names(residuals, features, data, weights or {})
        self.residuals = dict(residuals)
        self.ridge = ridge
        first = next(iter(features.values()))
        if first.ndim != 4:
            raise ShapeError(
                f"features: got shape {tuple(first.shape)}, expected (E, m, k, N): items, points, "
                "features of a point, unknowns"
            )
        self.items, self.unknowns = first.shape[0], first.shape[3]
        tensors: list[Tensor] = []
        self._counts: list[int] = []
        self.scales: list[float] = []
        for name, phi in features.items():
            rows = _expand(name, phi, data.get(name, ()), self.items, self.unknowns)
            tensors += rows
            self._counts.append(len(rows) - 1)
            weight = (weights or {}).get(name, 1.0)
            check_positive(f"weights[{name!r}]", weight, allow_zero=True)
            self.scales.append(weight / max(phi.shape[1], 1))
        self.names = tuple(features)
        self.tensors = tuple(tensors)

    def set_scales(self, scales: Mapping[str, float]) -> PointwiseProblem:
        """Set the factors of families as they are, without dividing by the number of points."""
        self.scales = [float(scales[name]) for name in self.names]
        return self

    def families(self) -> Iterator[tuple[str, Tensor, tuple[Tensor, ...]]]:
        """Name, features and data of each family."""
        rest = iter(self.tensors)
        for name, count in zip(self.names, self._counts, strict=True):
            phi = next(rest)
            yield name, phi, tuple(next(rest) for _ in range(count))

    def rows(self, w: Tensor) -> dict[str, Tensor]:
        """Residuals at ``w`` of shape ``(E, N)``: ``(E, m, c)`` by family, differentiable."""
        rows = {}
        for name, phi, data in self.families():
            z = torch.einsum("emkn,en->emk", phi, w)
            rows[name] = _residual(self.residuals[name], name, z, data)
        return rows

    def minimize(
        self, solver: LevenbergMarquardt, start: Tensor
    ) -> tuple[Solution[Tensor], NormalEquations | None]:
        """Run the iteration, if residuals are functions of single points."""
        self.check_residuals()
        return super().minimize(solver, start)

    def check_residuals(self) -> None:
        """Evaluate each residual at a point among others and alone.

        Raises:
            SettingsError: If the two differ.
        """
        for name, phi, data in self.families():
            if self.items and phi.shape[1]:
                _check_single(self.residuals[name], name, phi.detach()[:, :2].sum(-1), data)

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items, chunk by chunk."""
        cost = 0.5 * self.ridge * (w * w).sum(-1)
        gradient = self.ridge * w
        matrix = self.ridge * torch.eye(self.unknowns, dtype=w.dtype, device=w.device)
        matrix = matrix.repeat(len(items), 1, 1)
        for scale, residual, phi, data in self._chunks(items):
            flat = phi.flatten(1, 2)
            z = (flat @ w[..., None]).reshape(phi.shape[:3])
            if is_exact:
                value, q, S = _curvature(residual, z, data)
                rows, others = flat, (S @ phi).flatten(1, 2)
                slopes = q.flatten(1, 2)
            else:
                value, r, dr = _slopes(residual, z, data)
                rows = others = torch.einsum("emck,emkn->emcn", dr, phi).flatten(1, 2)
                slopes = r.flatten(1, 2)
            cost = cost + scale * value
            gradient = gradient + scale * (rows.mT @ slopes[..., None])[..., 0]
            matrix = torch.baddbmm(matrix, rows.mT, others, alpha=scale)
        return NormalEquations(cost, gradient, matrix)

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in features and data, chunk by chunk."""
        found: list[Tensor | None] = []
        for scale, (name, phi, data) in zip(self.scales, self.families(), strict=True):
            phi_bar = torch.zeros_like(phi)
            bars = [torch.zeros_like(one) for one in data]
            for part in _slices(phi, len(items)):
                some = phi.detach()[items, part]
                z, y = (
                    torch.einsum("emkn,en->emk", some, factor).requires_grad_() for factor in (w, v)
                )
                rest = [one.detach()[items, part].requires_grad_() for one in data]
                with torch.enable_grad():
                    r = _residual(self.residuals[name], name, z, rest)
                    (q,) = _grad(0.5 * (r * r).sum(), [z], create_graph=True)
                    s, *slopes = _grad((q * y.detach()).sum(), [z, *rest])
                row = q.detach()[..., None] * v[:, None, None] + s[..., None] * w[:, None, None]
                phi_bar[items, part] = scale * row
                for bar, slope in zip(bars, slopes, strict=True):
                    bar[items, part] = scale * slope
            found += [phi_bar, *bars]
        return found

    def _chunks(
        self, items: Tensor
    ) -> Iterator[tuple[float, Callable[..., Tensor], Tensor, list[Tensor]]]:
        is_whole = len(items) == self.items
        for scale, (name, phi, data) in zip(self.scales, self.families(), strict=True):
            residual = self.residuals[name]

            def evaluate(
                z: Tensor, data: Sequence[Tensor], f: Any = residual, n: str = name
            ) -> Any:
                return _residual(f, n, z, data)

            for part in _slices(phi, len(items)):
                some, *rest = (
                    one.detach()[:, part] if is_whole else one.detach()[items, part]
                    for one in (phi, *data)
                )
                yield scale, evaluate, some, rest


def _slices(phi: Tensor, items: int) -> Iterator[slice]:
    points = max(1, _CHUNK // max(1, items * phi.shape[2] * phi.shape[3]))
    for begin in range(0, phi.shape[1], points):
        yield slice(begin, begin + points)


def residual_rows(
    residual: Residual, name: str, z: Sequence[Tensor], data: Sequence[Tensor]
) -> list[Tensor]:
    """Call a residual and check what it gives.

    Args:
        residual: The function.
        name: Of its family, for messages.
        z: Features, shapes ``(e, m)``.
        data: Data, shapes ``(e, m)``.

    Returns:
        Its rows, shapes ``(e, m)``.

    Raises:
        SettingsError: If it cannot be called with so many arguments.
        ShapeError: If it gives other shapes.
    """
    try:
        r = residual(*z, *data)
    except TypeError as error:
        raise SettingsError(
            f"residuals[{name!r}]: called with {len(z)} features and {len(data)} data, it "
            f"raised {error}; it takes features first, then data, each of shape (items, points)"
        ) from error
    shape, like = z[0].shape, z[0]
    parts = r if isinstance(r, tuple | list) else (r,)
    for part in parts:
        if not isinstance(part, Tensor | float | int):
            raise SettingsError(
                f"residuals[{name!r}]: gave {type(part).__name__}, expected a tensor, or a tuple "
                "of such"
            )
    rows = [torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts]
    for row in rows:
        if row.ndim > 2 or any(a not in {1, b} for a, b in zip(row.shape, shape, strict=False)):
            raise ShapeError(
                f"residuals[{name!r}]: gave shape {tuple(row.shape)}, expected {tuple(shape)}: "
                "one number a point, or a tuple of such"
            )
    return [row.expand(shape) for row in rows]


def _check_single(residual: Residual, name: str, z: Tensor, data: Sequence[Tensor]) -> None:
    """Refuse a residual whose value at a point depends on what other points there are."""
    points = z.shape[1]
    among = _residual(residual, name, z, [one[:, :points].detach() for one in data])[0, 0]
    alone = _residual(residual, name, z[:1, :1], [one[:1, :1].detach() for one in data])[0, 0]
    if not torch.allclose(among, alone, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise SettingsError(
            f"residuals[{name!r}]: gave {among.tolist()} at a point among others and "
            f"{alone.tolist()} at the same point alone, expected a function of single points "
            "without randomness; take GeneralLeastSquares for others"
        )


def _residual(residual: Residual, name: str, z: Tensor, data: Sequence[Tensor]) -> Tensor:
    """Residuals of points, shape ``(e, m, c)``."""
    return torch.stack(residual_rows(residual, name, z.unbind(-1), data), -1)


def _slopes(
    residual: Callable[..., Tensor], z: Tensor, data: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost, residuals ``(e, m, c)`` and their derivatives ``(e, m, c, k)``."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        r = residual(z, data)
        slopes = [_grad(r[..., i].sum(), [z], retain_graph=True)[0] for i in range(r.shape[-1])]
    r = r.detach()
    return 0.5 * (r * r).sum((1, 2)), r, torch.stack(slopes, -2)


def _curvature(
    residual: Callable[..., Tensor], z: Tensor, data: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost, its derivatives ``(e, m, k)`` and second derivatives ``(e, m, k, k)``."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        r = residual(z, data)
        (q,) = _grad(0.5 * (r * r).sum(), [z], create_graph=True)
        rows = [_grad(q[..., i].sum(), [z], retain_graph=True)[0] for i in range(z.shape[-1])]
    r = r.detach()
    return 0.5 * (r * r).sum((1, 2)), q.detach(), torch.stack(rows, -2)


def _grad(value: Tensor, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    return gradients([value], inputs, **options)


def gradients(
    values: Sequence[Tensor],
    inputs: Sequence[Tensor],
    factors: Sequence[Tensor] | None = None,
    **options: bool,
) -> list[Tensor]:
    """Gradients of a sum, zero where there is no dependence.

    Args:
        values: The terms; those that depend on nothing count for nothing.
        inputs: With respect to what.
        factors: Of the terms, of their shapes; ones by default.
        **options: As for `torch.autograd.grad`.
    """
    ones = [torch.ones_like(value) for value in values] if factors is None else factors
    pairs = [pair for pair in zip(values, ones, strict=True) if pair[0].requires_grad]
    if not pairs:
        return [torch.zeros_like(one) for one in inputs]
    slopes: tuple[Tensor | None, ...] = torch.autograd.grad(
        [value for value, _ in pairs],
        tuple(inputs),
        [factor for _, factor in pairs],
        allow_unused=True,
        **options,
    )
    return [
        torch.zeros_like(one) if slope is None else slope
        for one, slope in zip(inputs, slopes, strict=True)
    ]


def _check_names(
    residuals: Mapping[str, Any],
    features: Mapping[str, Any],
    data: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> None:
    if not features or set(features) != set(residuals):
        raise SettingsError(
            f"features: got families {sorted(features)}, expected {sorted(residuals)} as in "
            "residuals, at least one"
        )
    for what, given in (("data", data), ("weights", weights)):
        if not set(given) <= set(residuals):
            raise SettingsError(
                f"{what}: got families {sorted(given)}, expected some of {sorted(residuals)}"
            )


def _expand(
    name: str, phi: Tensor, data: Sequence[Tensor], items: int, unknowns: int
) -> list[Tensor]:
    """Features of a family and its data, one number a point, in the form of batches."""
    if phi.ndim != 4 or phi.shape[0] != items or phi.shape[3] != unknowns:
        raise ShapeError(
            f"features[{name!r}]: got shape {tuple(phi.shape)}, expected ({items}, m, k, "
            f"{unknowns}): items, points, features of a point, unknowns"
        )
    if isinstance(data, Tensor):
        raise SettingsError(f"data[{name!r}]: got one tensor, expected a list of tensors")
    rows = [phi]
    for number, one in enumerate(data):
        try:
            rows.append(one.to(phi.device).expand(items, phi.shape[1]))
        except RuntimeError as error:
            raise ShapeError(
                f"data[{name!r}][{number}]: got shape {tuple(one.shape)}, expected one that "
                f"broadcasts to ({items}, {phi.shape[1]}): items, points"
            ) from error
    for row in rows:
        if row.dtype != torch.float64:
            raise SettingsError(
                f"{name}: got a tensor of {row.dtype}, expected torch.float64; use .double()"
            )
    return rows
