"""What is trained: parameters, named terms of a loss, and what else a trainer may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from solvers.core import (
    SettingsError,
    capture_random_state,
    check_callable,
    check_kind,
    describe,
    restore_random_state,
)
from solvers.parallel import Executor, differentiable_map

__all__ = ["Objective", "parallel_terms"]

Terms = Callable[[], Mapping[str, Tensor]]


class Stateful(Protocol):
    """What keeps its own state, for example points that are drawn anew."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Go on from a state."""


class Objective:
    r"""A loss as the sum of named terms.

    Args:
        parameters: What is trained: a module, or tensors that take gradients.
        terms: Gives the terms by name, scalars with a graph. With ``loss_and_gradient`` they need
            none, and are asked for only for records and to tell which of them is not finite.
        residual: Gives residuals r with :math:`\frac12 \|r\|^2` equal to the loss and a graph, for
            methods that use their Jacobian, such as `LeastSquares`.
        loss_and_gradient: Takes all parameters as one vector, gives loss and gradient, for searches
            on a vector and first-order methods; by default autograd does.
        linearize: Takes all parameters as one vector, gives blocks of residuals with their
            Jacobians, for :class:`solvers.optim.GaussNewton`.
        held_out: Gives a number that falls with the true error, where nothing was trained.
        measures: Give further numbers that fall with the true error, by name, for example the
            error against a reference.
        resample: Draws new points with a generator.
        reweight: Chooses new weights of the terms.
        generator: Its source of random numbers, saved and restored with the run.
        state: Tensors that belong to a run beside the parameters, for example the points of now;
            they are written to checkpoints and filled in place when a run goes on. Or an object
            with ``state_dict()`` and ``load_state_dict()``.

    Raises:
        SettingsError: If there is nothing to train.

    Example:
        >>> line = nn.Linear(1, 1)
        >>> x = torch.linspace(0, 1, 5)[:, None]
        >>> fit = Objective(line, lambda: {"data": (line(x) - 2 * x).square().mean()})
        >>> sorted(fit.terms())
        ['data']
    """

    def __init__(
        self,
        parameters: nn.Module | Iterable[Tensor],
        terms: Terms,
        *,
        residual: Callable[[], Tensor] | None = None,
        loss_and_gradient: Callable[[Tensor], tuple[float, Tensor]] | None = None,
        linearize: Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]] | None = None,
        held_out: Callable[[], float] | None = None,
        measures: Mapping[str, Callable[[], float]] | None = None,
        resample: Callable[[torch.Generator], object] | None = None,
        reweight: Callable[[], object] | None = None,
        generator: torch.Generator | None = None,
        state: Mapping[str, Tensor] | Stateful | None = None,
    ) -> None:
        check_kind("parameters", parameters, (nn.Module, Iterable), "a torch module or tensors")
        check_callable("terms", terms, "a function without arguments that gives terms by name")
        for name, function in {
            "residual": residual, "loss_and_gradient": loss_and_gradient, "linearize": linearize,
            "held_out": held_out, "resample": resample, "reweight": reweight,
        }.items():  # fmt: skip
            if function is not None:
                check_callable(name, function, "a function, or None")
        check_kind("measures", measures, (Mapping, NoneType), "functions by name, or None")
        check_kind("generator", generator, (torch.Generator, NoneType), "a torch.Generator or None")
        module = isinstance(parameters, nn.Module)
        given = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
        tensors = list(given)
        for tensor in tensors:
            check_kind("parameters", tensor, Tensor, "a torch module or tensors")
        self.parameters = [p for p in tensors if p.requires_grad]
        if not self.parameters:
            raise SettingsError(
                "parameters: none takes gradients, expected at least one"
                + ("; look for requires_grad_(False)" if module else "")
            )
        self.terms = terms
        self.residual = residual
        self.loss_and_gradient = loss_and_gradient
        self.linearize = linearize
        self.held_out = held_out
        self.measures = dict(measures or {})
        self._resample = resample
        self.reweight = reweight
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        known = {} if state is None else state
        self.state = _Tensors(known) if isinstance(known, Mapping) else known
        if not hasattr(self.state, "load_state_dict"):
            raise SettingsError(
                f"state: got {describe(state)}, expected tensors by name, or an object with "
                "state_dict and load_state_dict"
            )

    @property
    def can_resample(self) -> bool:
        """Whether points can be drawn again."""
        return self._resample is not None

    def resample(self) -> None:
        """Draw new points, if that was provided for."""
        if self._resample is not None:
            self._resample(self.generator)

    def snapshot(self) -> list[Tensor]:
        """Copy the parameters."""
        return [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def restore(self, snapshot: Sequence[Tensor]) -> None:
        """Put copied parameters back."""
        for p, old in zip(self.parameters, snapshot, strict=True):
            p.copy_(old)

    def state_dict(self) -> dict[str, Any]:
        """Everything about a run that is not in the method."""
        return {
            "parameters": self.snapshot(),
            "state": self.state.state_dict(),
            "random": capture_random_state(),
            "generator": capture_random_state(self.generator),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: From :meth:`state_dict`.
        """
        self.restore(state["parameters"])
        self.state.load_state_dict(state["state"])
        restore_random_state(state["random"])
        restore_random_state(state["generator"], self.generator)


class _Tensors:
    """Tensors that are saved as copies and filled in place."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def state_dict(self) -> dict[str, Any]:
        return {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])


def parallel_terms(
    function: Callable[[Any, Any], Mapping[str, Tensor]],
    parts: Callable[[], Sequence[Any]],
    parameters: Any,
    *,
    executor: Executor | None = None,
) -> Terms:
    """Compute terms as sums over parts of the data, each on a worker.

    Args:
        function: Takes a part and the parameters, gives that part's share of each term.
        parts: Gives the parts of now.
        parameters: Tensors of the model, in a tuple, list or dict.
        executor: Where to run; in this thread by default.

    Returns:
        Function for :class:`Objective`. Sums run over the parts in order, so that every executor
        gives the same numbers.

    Example:
        >>> w = torch.ones(1, requires_grad=True)
        >>> share = lambda x, p: {"data": (p[0] * x).square().sum()}
        >>> terms = parallel_terms(share, lambda: torch.arange(4.0).split(2), [w])
        >>> float(terms()["data"].detach())
        14.0
    """

    def terms() -> Mapping[str, Tensor]:
        shares = differentiable_map(
            function, list(parts()), parameters=parameters, executor=executor
        )
        total = dict(shares[0])
        for share in shares[1:]:
            total = {name: value + share[name] for name, value in total.items()}
        return total

    return terms
