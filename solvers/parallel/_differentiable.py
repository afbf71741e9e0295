r"""Reverse mode across workers.

Autograd stops at the border of a process. Here the border is one operation of autograd: forward,
every worker records the graph of its items and sends plain outputs; backward, it gets the
cotangents of its items and sends back vector-Jacobian products,

.. math:: \bar\theta = \sum_i \Bigl(\frac{\partial y_i}{\partial\theta}\Bigr)^{\!\top} \bar y_i,
          \qquad
          \bar x_i = \Bigl(\frac{\partial y_i}{\partial x_i}\Bigr)^{\!\top} \bar y_i ,

which the caller adds up in the order of the items, whoever computed them.
"""

from __future__ import annotations

import dis
import functools
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from solvers.core import SettingsError
from solvers.parallel._executor import Executor
from solvers.parallel._failure import TaskError
from solvers.parallel._serial import SerialExecutor

__all__ = ["differentiable_map"]

_Slopes = tuple[list[Tensor | None], list[Tensor | None]]


def differentiable_map(
    function: Callable[..., Any],
    items: Sequence[Any],
    *,
    parameters: Any = None,
    executor: Executor | None = None,
) -> list[Any]:
    r"""Map a function over items on workers, with gradients.

    Args:
        function: Called as ``function(item)``, or ``function(item, parameters)`` if there are any.
            It gives a tensor or a tuple, list or dict of tensors; other values in there (reports,
            numbers) pass through. It must be repeatable.
        items: What differs between calls: tensors, or tuples, lists and dicts of them. An item may
            be a value that was sent ahead with ``executor.share``.
        parameters: What all calls share, tensors in the same forms; sent once.
        executor: Where to run; in this thread by default. Item ``i`` runs on worker ``i`` modulo
            their number, so that it finds there what it left.

    Returns:
        Outputs in the order of the items.

    Raises:
        TaskError: If a call raised, with the number of the item and the error as its cause.
        SettingsError: If ``function`` itself holds tensors that want gradients, which would be
            lost.

    Gradients: of the tensors in ``items`` and ``parameters``, once; computed on the worker that
    holds the graph, or recomputed there if it died meanwhile. Sums run over items in their order,
    so every executor gives the same bits if its workers compute the same bits.
    Cost: a message to each worker forward and one backward; the gradient of ``parameters`` comes
    back once for each item.

    Example:
        >>> scale = torch.tensor(3.0, requires_grad=True)
        >>> xs = [torch.tensor(1.0), torch.tensor(2.0)]
        >>> ys = differentiable_map(lambda x, p: p * x**2, xs, parameters=scale)
        >>> sum(ys).backward()
        >>> float(scale.grad)
        5.0
    """
    _check_holds_no_gradient(function)
    tree = (list(items), parameters)
    leaves, spec = tree_flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    tensors = [leaves[place] for place in places]
    wants = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    plan = _Plan(
        function,
        executor or SerialExecutor(),
        [None if place in set(places) else leaf for place, leaf in enumerate(leaves)],
        spec,
        places,
        keeps_graphs=wants,
    )
    outputs = _Map.apply(plan, *tensors) if tensors else plan.run_forward(())  # type: ignore[no-untyped-call]
    return plan.assemble(outputs)


class Tape:
    """Graphs of forward passes on one worker, until their backward."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[str, int], _Graph] = {}

    def forward(
        self,
        token: str,
        shared: tuple[Callable[..., Any], Any],
        numbers: Sequence[int],
        keeps_graphs: bool,
        expired: frozenset[str],
        *items: Any,
    ) -> list[Any]:
        """Run items; give the outputs without history, or the error of an item."""
        for key in [key for key in self._graphs if key[0] in expired]:
            del self._graphs[key]
        outputs: list[Any] = []
        for number, item in zip(numbers, items, strict=True):
            try:
                graph = _Graph(*shared, item, keeps_graphs)
            except Exception as error:
                outputs.append(_Raised(error))
                continue
            if keeps_graphs:
                self._graphs[token, number] = graph
            outputs.append(tree_map(_plain, graph.output))
        return outputs

    def backward(
        self, token: str, numbers: Sequence[int], cotangents: Sequence[Sequence[Tensor | None]]
    ) -> list[_Slopes | _Raised | None]:
        """Pull cotangents back through items; None for an item whose graph is not here."""
        slopes: list[_Slopes | _Raised | None] = []
        for number, cotangent in zip(numbers, cotangents, strict=True):
            graph = self._graphs.pop((token, number), None)
            try:
                slopes.append(None if graph is None else graph.pull(cotangent))
            except Exception as error:
                slopes.append(_Raised(error))
        return slopes


class _Graph:
    """One call with what it was made from."""

    def __init__(self, function: Callable[..., Any], parameters: Any, item: Any, wants: bool):
        leaves, spec = tree_flatten((item, parameters))
        leaves = [_fresh(leaf) if wants else leaf for leaf in leaves]
        self.inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        item, parameters = tree_unflatten(leaves, spec)
        self._own = _count_tensors(item)
        with torch.enable_grad() if wants else torch.no_grad():
            self.output = function(item) if parameters is None else function(item, parameters)

    def pull(self, cotangents: Sequence[Tensor | None]) -> _Slopes:
        """Gradients of the tensors of the item, and of those of the parameters."""
        outputs = [leaf for leaf in tree_flatten(self.output)[0] if isinstance(leaf, Tensor)]
        pairs = [
            (output, cotangent)
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        wanted = [tensor for tensor in self.inputs if tensor.requires_grad]
        found: Iterator[Tensor | None] = iter(())
        if pairs and wanted:
            heads, weights = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(heads, wanted, weights, allow_unused=True))
        slopes = [next(found, None) if tensor.requires_grad else None for tensor in self.inputs]
        return slopes[: self._own], slopes[self._own :]


class _Plan:
    """One call of the map: what is sent where, and what came back."""

    def __init__(
        self,
        function: Callable[..., Any],
        executor: Executor,
        others: list[Any],
        spec: TreeSpec,
        places: list[int],
        *,
        keeps_graphs: bool,
    ):
        self._function = function
        self._executor = executor
        self._others, self._spec, self._places = others, spec, places
        self._keeps_graphs = keeps_graphs
        self._token = uuid.uuid4().hex
        self._tapes = executor.residents(Tape)
        self._shape: list[Any] = []
        if keeps_graphs:
            weakref.finalize(self, executor.expired.append, self._token).atexit = False

    def _tree(self, tensors: Sequence[Tensor]) -> tuple[list[Any], Any]:
        leaves = list(self._others)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        tree: tuple[list[Any], Any] = tree_unflatten(leaves, self._spec)
        return tree

    def _each_worker(self, numbers: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        for worker in range(self._executor.workers):
            mine = [number for number in numbers if number % self._executor.workers == worker]
            if mine:
                yield worker, mine

    def _outputs_of(self, numbers: Sequence[int], tensors: Sequence[Tensor]) -> dict[int, Any]:
        """Run some items on their workers."""
        items, parameters = self._tree(tensors)
        shared = self._executor.share((self._function, parameters))
        expired = frozenset(self._executor.take_expired())
        sent = []
        for worker, mine in self._each_worker(numbers):
            chosen = [items[number] for number in mine]
            tape = self._tapes[worker]
            settings = (self._token, shared, mine, self._keeps_graphs, expired)
            sent.append((mine, tape.call("forward", *settings, *chosen)))
        outputs: dict[int, Any] = {}
        for mine, pending in sent:
            outputs.update(zip(mine, pending.result(), strict=True))
        self._raise_first(outputs)
        return outputs

    def _raise_first(self, answers: Mapping[int, Any]) -> None:
        for number in sorted(answers):
            answer = answers[number]
            if isinstance(answer, _Raised):
                error = answer.error
                raise TaskError.of_item(self._function, number, self._count, error) from error

    def run_forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs of all items in one row; their shape is kept."""
        self._count = len(self._tree(tensors)[0])
        outputs = self._outputs_of(range(self._count), tensors)
        leaves, self._output_spec = tree_flatten([outputs[n] for n in range(self._count)])
        self._is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
        self._rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._widths = [
            sum(isinstance(leaf, Tensor) for leaf in tree_flatten(outputs[n])[0])
            for n in range(self._count)
        ]
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def assemble(self, row: Sequence[Tensor]) -> list[Any]:
        """Give the outputs the form that the function gave them."""
        tensors = iter(row)
        leaves = [
            next(tensors) if is_tensor else rest
            for is_tensor, rest in zip(self._is_tensor, self._rest, strict=True)
        ]
        outputs: list[Any] = tree_unflatten(leaves, self._output_spec)
        return outputs

    def run_backward(
        self, tensors: Sequence[Tensor], row: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Gradients of all tensors, in the order in which they were given."""
        if self._executor.is_closed:
            raise SettingsError(
                f"differentiable_map: the {type(self._executor).__name__} was closed before the "
                "backward pass, which runs on its workers; call backward() before it is closed"
            )
        given = iter(row)
        cotangents = [[next(given) for _ in range(width)] for width in self._widths]
        numbers = [n for n, weights in enumerate(cotangents) if any(w is not None for w in weights)]
        slopes = self._pull(numbers, cotangents)
        lost = [number for number in numbers if slopes[number] is None]
        if lost:
            self._outputs_of(lost, tensors)
            slopes.update(self._pull(lost, cotangents))
        items, parameters = self._tree([torch.empty(0)] * len(tensors))
        sums: list[Tensor | None] = [None] * _count_tensors(parameters)
        gradients: list[Tensor | None] = []
        for number, item in enumerate(items):
            width = _count_tensors(item)
            own, common = slopes.get(number) or ([None] * width, [None] * len(sums))
            # A value sent ahead has no tensors here.
            gradients += own[:width]
            sums = [_add(total, term) for total, term in zip(sums, common, strict=True)]
        return gradients + sums

    def _pull(
        self, numbers: Sequence[int], cotangents: Sequence[Sequence[Tensor | None]]
    ) -> dict[int, _Slopes | None]:
        sent = []
        for worker, mine in self._each_worker(numbers):
            weights = [cotangents[number] for number in mine]
            call = self._tapes[worker].call("backward", self._token, mine, weights)
            sent.append((mine, call))
        slopes: dict[int, _Slopes | None] = {}
        for mine, pending in sent:
            slopes.update(zip(mine, pending.result(), strict=True))
        self._raise_first(slopes)
        return slopes


class _Map(torch.autograd.Function):
    """The whole map as one operation."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = plan.run_forward(tensors)
        ctx.plan = plan
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(
            *(
                output
                for output in outputs
                if not (output.is_floating_point() or output.is_complex())
            )
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "differentiable_map has first derivatives only, got create_graph=True; "
                "differentiate inside of the mapped function instead"
            )
        return None, *ctx.plan.run_backward(ctx.saved_tensors, cotangents)


class _Raised:
    """The error of an item, as a value."""

    def __init__(self, error: Exception):
        self.error = error


def _fresh(leaf: Any) -> Any:
    """A leaf of a new graph."""
    return leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf


def _plain(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _count_tensors(tree: Any) -> int:
    return sum(isinstance(leaf, Tensor) for leaf in tree_flatten(tree)[0])


def _add(total: Tensor | None, term: Tensor | None) -> Tensor | None:
    if total is None or term is None:
        return term if total is None else total
    return total + term


def _check_holds_no_gradient(function: Callable[..., Any]) -> None:
    for held in _held_by(function):
        if isinstance(held, nn.Module):
            is_wanted = any(parameter.requires_grad for parameter in held.parameters())
        else:
            is_wanted = isinstance(held, Tensor) and held.requires_grad
        if is_wanted and torch.is_grad_enabled():
            raise SettingsError(
                f"function: holds a {type(held).__name__} that requires gradients, which do not "
                "reach it from workers; pass it in parameters= (for a module "
                "dict(net.named_parameters()), and call it with torch.func.functional_call), or "
                "detach it"
            )


def _held_by(function: Callable[..., Any]) -> Iterator[Any]:
    """What a function uses besides its arguments: closure, globals, bound object and arguments."""
    yield function
    yield getattr(function, "__self__", None)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # a name that has no value yet
    names = getattr(function, "__globals__", {})
    for name in _globals_of(getattr(function, "__code__", None)):
        yield names.get(name)
    if isinstance(function, functools.partial):
        yield from function.args
        yield from function.keywords.values()
        yield from _held_by(function.func)


def _globals_of(code: CodeType | None) -> Iterator[str]:
    """Global names that code loads, that of functions defined in it too."""
    if code is None:
        return
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)
