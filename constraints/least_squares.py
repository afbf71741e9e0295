r"""Layers that solve a nonlinear least-squares problem, for example the residual of an equation.

A network gives basis functions :math:`b_n`; the layer finds the field :math:`u = \sum_n w_n b_n`
that obeys an equation best, and gradients flow back into the basis. The solve is exact to a
tolerance and says so, item by item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from constraints._tensors import check_plain, check_real
from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_positive,
)
from solvers.nonlinear import (
    CompiledProblem,
    GeneralProblem,
    LevenbergMarquardt,
    PointwiseProblem,
    choose_problem,
    implicit_least_squares,
)

__all__ = ["Backend", "GeneralLeastSquares", "ImplicitLeastSquares"]

Backend = Literal["auto", "kernel", "reference"]
_ONLY = "rows"


class _Layer(nn.Module):
    """Settings that both layers share."""

    def __init__(self, ridge: float, tolerance: float, max_iterations: int, on_failure: OnFailure):
        super().__init__()
        if on_failure not in {"raise", "warn", "mask"}:
            raise SettingsError(
                f"on_failure: got {on_failure!r}, expected 'raise', 'warn' or 'mask'; a "
                "least-squares problem always has a solution, so there is nothing to project on"
            )
        check_positive("ridge", ridge, allow_zero=True)
        check_count("max_iterations", max_iterations)
        self.ridge = ridge
        self.solver = LevenbergMarquardt(tolerance=tolerance, max_iterations=max_iterations)
        self.on_failure = on_failure


class ImplicitLeastSquares(_Layer):
    r"""Fit the coefficients of a basis to residuals that are declared point by point.

    .. math:: w^* = \arg\min_w \sum_f \frac{\beta_f}{m_f} \sum_{i=1}^{m_f}
              \tfrac12 \left|r_f(\Phi_{fi} w, d_{fi})\right|^2 + \tfrac12 \rho |w|^2

    Args:
        residuals: A function, or several by name of their family of rows. Each takes the ``k``
            features of a point (the field, its derivatives), then the data of the point, and gives
            a number or a tuple of numbers. Written with arithmetic, ``solvers.kernels.scalar`` and
            functions of torch that have a counterpart there it is compiled; otherwise it runs on
            tensors of shape ``(E, m)``. It must be smooth near the solution: at a kink the
            iteration creeps and ends as ``MAX_ITERATIONS``.
        weights: Factors :math:`\beta` by family, 1 by default. Rows of one magnitude fit best:
            write equations without units.
        ridge: Factor :math:`\rho`; keeps coefficients of a nearly dependent basis small.
        tolerance: Share of the residual that a further step may remove.
        max_iterations: Steps of an item.
        backend: ``"kernel"``, ``"reference"`` (tensors, any device), or ``"auto"``: on the CPU the
            kernel, or sums over points in native text where residuals cannot be traced.
        on_failure: ``"raise"``, ``"warn"`` or ``"mask"``: failed items have their best iterate and
            no gradient.

    Raises:
        SettingsError: If a setting is out of range or a residual cannot be traced.

    Source: the layer of Négiar, Mahoney & Krishnapriyan 2023, "Learning differentiable solvers for
    systems with hard constraints", with exact second-order gradients and mean-square rows.

    Example:
        >>> import torch
        >>> t = torch.linspace(0, 1, 40, dtype=torch.float64)
        >>> powers = torch.stack([t**n for n in range(7)], -1)
        >>> slopes = torch.stack([n * t ** max(n - 1, 0) for n in range(7)], -1)
        >>> layer = ImplicitLeastSquares({
        ...     "decay": lambda u, du: du + u * u,       # u' = -u^2
        ...     "start": lambda u: u - 1.0,
        ... })
        >>> w, report = layer({
        ...     "decay": torch.stack([powers, slopes], -2)[None],
        ...     "start": powers[None, :1, None],
        ... })
        >>> report.all_converged, round(float(w.sum()), 4)     # u(1) = 1 / (1 + 1)
        (True, 0.5)
    """

    def __init__(
        self,
        residuals: Callable[..., Any] | Mapping[str, Callable[..., Any]],
        *,
        weights: Mapping[str, float] | None = None,
        ridge: float = 0.0,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
        backend: Backend = "auto",
        on_failure: OnFailure = "raise",
    ):
        super().__init__(ridge, tolerance, max_iterations, on_failure)
        check_choice("backend", backend, ("auto", "kernel", "reference"))
        _check_residuals(residuals)
        if weights is not None and not isinstance(weights, Mapping):
            raise SettingsError(
                f"weights: got {weights!r}, expected a mapping from families to factors"
            )
        self._is_single = callable(residuals)
        self.residuals = {_ONLY: residuals} if callable(residuals) else dict(residuals)
        self.weights = dict(weights or {})
        self.backend = backend

    def problem(
        self,
        features: Tensor | Mapping[str, Tensor],
        data: Sequence[Tensor] | Mapping[str, Sequence[Tensor]] | None = None,
    ) -> PointwiseProblem:
        """The problem that a call solves, arguments as there, float64."""
        families = self._by_family("features", features, Tensor)
        rest = {} if data is None else self._by_family("data", data, (list, tuple))
        kind = self._kind(families, rest)
        return kind(self.residuals, families, rest, weights=self.weights, ridge=self.ridge)

    def forward(
        self,
        features: Tensor | Mapping[str, Tensor],
        data: Sequence[Tensor] | Mapping[str, Sequence[Tensor]] | None = None,
        *,
        start: Tensor | None = None,
    ) -> tuple[Tensor, Report]:
        r"""Solve.

        Args:
            features: :math:`\Phi`, shape ``(E, m, k, N)``: items, points, features of a point,
                unknowns; by family if the residuals have names.
            data: Tensors that broadcast to ``(E, m)``, in the order in which the residual takes
                them; by family likewise.
            start: First guess, shape ``(E, N)``, for example the last solution; zero by default.

        Returns:
            Coefficients of shape ``(E, N)`` in the type of the features, and the report. Its
            residual is the share of the fit that was left to gain, its count ``cost`` the minimum.

        Raises:
            ShapeError: If shapes do not fit together.
            SettingsError: If an argument is no real tensor, families do not match, or a tensor is
                inside of a `torch.func` transform.
            NotConvergedError: If an item failed and ``on_failure`` is ``"raise"``.

        Gradients: of features and data, by the implicit rule with the exact Hessian; once.
        Cost: features are read once a step; memory is that of the features and their gradient.
        """
        families = self._by_family("features", features, Tensor)
        if not families:
            raise SettingsError(
                f"features: got no family, expected tensors for {sorted(self.residuals)}"
            )
        first = next(iter(families.values()))
        problem = self.problem(
            _double("features", features, allow_whole=False), _double("data", data)
        )
        solution = implicit_least_squares(
            problem,
            None if start is None else _real("start", start),
            solver=self.solver,
            on_failure=self.on_failure,
            what="ImplicitLeastSquares",
        )
        return solution.value.to(first.dtype), solution.report

    def _by_family(self, what: str, given: Any, kind: Any) -> dict[str, Any]:
        if isinstance(given, kind):
            if self._is_single:
                return {_ONLY: given}
            raise SettingsError(
                f"{what}: got one {type(given).__name__}, expected a mapping with families "
                f"{sorted(self.residuals)}"
            )
        if self._is_single or not isinstance(given, Mapping):
            raise SettingsError(
                f"{what}: got {type(given).__name__}, expected "
                + ("no mapping, since the residual has no name" if self._is_single else "a mapping")
            )
        return dict(given)

    def _kind(self, features: dict[str, Tensor], data: dict[str, Any]) -> type[PointwiseProblem]:
        if self.backend != "auto":
            return CompiledProblem if self.backend == "kernel" else PointwiseProblem
        if set(features) != set(self.residuals) or any(phi.ndim != 4 for phi in features.values()):
            return PointwiseProblem
        given = [*features.values(), *(one for some in data.values() for one in some)]
        shapes = {name: (phi.shape[2], len(data.get(name, ()))) for name, phi in features.items()}
        return choose_problem(self.residuals, shapes, given)


class GeneralLeastSquares(_Layer):
    r"""Minimise :math:`\tfrac12 |r(w, \theta)|^2 + \tfrac12 \rho |w|^2` for any residual.

    Args:
        residual: ``residual(w, *parameters)`` of one item: from ``(N,)`` to ``(M,)``, in operations
            that ``torch.func`` can transform.
        unknowns: Number of unknowns ``N``.
        ridge: Factor :math:`\rho`.
        tolerance: Share of the residual that a further step may remove.
        max_iterations: Steps of an item.
        on_failure: As for `ImplicitLeastSquares`.

    Raises:
        SettingsError: If a setting is out of range.

    Example:
        >>> import torch
        >>> layer = GeneralLeastSquares(lambda w, a: torch.stack([w[0] - a, w[0] ** 2 - a]), 1)
        >>> a = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        >>> w, report = layer(a, start=torch.ones(1, 1, dtype=torch.float64))
        >>> w.sum().backward()
        >>> round(w.item(), 4), round(a.grad.item(), 4)     # gradient of the exact minimiser
        (1.4757, 0.3926)
    """

    def __init__(
        self,
        residual: Callable[..., Tensor],
        unknowns: int,
        *,
        ridge: float = 0.0,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
        on_failure: OnFailure = "raise",
    ):
        super().__init__(ridge, tolerance, max_iterations, on_failure)
        if not callable(residual):
            raise SettingsError(f"residual: got {residual!r}, expected a function")
        check_count("unknowns", unknowns)
        self.residual, self.unknowns = residual, unknowns

    def forward(self, *parameters: Tensor, start: Tensor | None = None) -> tuple[Tensor, Report]:
        """Solve.

        Args:
            *parameters: What the residual depends on, shapes ``(E, ...)``.
            start: First guess, shape ``(E, N)``; zero by default.

        Returns:
            Minimisers of shape ``(E, N)``, and the report.

        Raises:
            ShapeError: If shapes do not fit together.
            SettingsError: If a parameter is no real tensor, or inside of a `torch.func` transform.
            NotConvergedError: If an item failed and ``on_failure`` is ``"raise"``.

        Gradients: of the parameters, by the implicit rule with the exact Hessian; once.
        """
        if not parameters:
            raise ShapeError("parameters: got none, expected at least one tensor (E, ...)")
        given = [
            _real(f"parameters[{number}]", one, allow_whole=number > 0)
            for number, one in enumerate(parameters)
        ]
        if any(one.ndim == 0 for one in given):
            raise ShapeError("parameters: got shape (), expected (E, ...): one entry an item")
        if not len(given[0]):
            return self._nothing(given, parameters[0])
        problem = GeneralProblem(
            self.residual,
            given,
            unknowns=self.unknowns,
            ridge=self.ridge,
        )
        solution = implicit_least_squares(
            problem,
            None if start is None else _real("start", start),
            solver=self.solver,
            on_failure=self.on_failure,
            what="GeneralLeastSquares",
        )
        return solution.value.to(parameters[0].dtype), solution.report

    def _nothing(self, given: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Report]:
        """Minimisers of no items, which depend on the parameters as others do."""
        zero = sum((one.flatten()[:0].sum() for one in given), start=like.new_zeros(()))
        none = like.new_zeros(0, dtype=torch.int64)
        report = Report(status=none, iterations=none, residual=none.double())
        return (like.new_zeros(0, self.unknowns) + zero).to(like.dtype), report


def _check_residuals(residuals: Any) -> None:
    if callable(residuals):
        return
    if not isinstance(residuals, Mapping) or not residuals:
        raise SettingsError(
            f"residuals: got {residuals!r}, expected a function, or a mapping from names of "
            "families to functions"
        )
    for name, one in residuals.items():
        if not callable(one):
            raise SettingsError(f"residuals[{name!r}]: got {one!r}, expected a function")


def _double(name: str, value: Any, *, allow_whole: bool = True) -> Any:
    """Real tensors in double precision, wherever they are."""
    if isinstance(value, Mapping):
        return {
            key: _double(f"{name}[{key!r}]", one, allow_whole=allow_whole)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_real(f"{name}[{number}]", one) for number, one in enumerate(value)]
    return None if value is None else _real(name, value, allow_whole=allow_whole)


def _real(name: str, value: Any, *, allow_whole: bool = True) -> Tensor:
    check_real(name, value, allow_whole=allow_whole)
    check_plain(name, value)
    return value.double()  # type: ignore[no-any-return]
