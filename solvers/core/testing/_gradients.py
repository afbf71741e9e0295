"""Do gradients agree with central differences?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from solvers.core._errors import SettingsError
from solvers.core.testing._table import SHOWN_ROWS, text_table

__all__ = ["check_gradients"]

_COTANGENTS = 3


def check_gradients(
    function: Callable[..., Tensor | Iterable[Tensor]],
    inputs: Sequence[Tensor] | Mapping[str, Tensor],
    *,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    directions: int | None = None,
    seed: int = 0,
) -> float:
    r"""Compare reverse-mode gradients with central differences.

    For random cotangents :math:`w` the derivative :math:`w^\top J d` is computed twice, by autograd
    and as :math:`w^\top (f(x + h d) - f(x - h d)) / 2h`. The directions :math:`d` are the
    coordinates of all inputs, or random unit vectors of each input.

    Args:
        function: Takes the inputs as separate arguments (by keyword for a mapping) and returns a
            tensor or several. Must return the same for the same input.
        inputs: float64 tensors to differentiate with respect to.
        eps: Step ``h``, times ``max(1, |x_i|)`` for a coordinate. The truncation error falls with
            ``h`` squared, the rounding error grows with ``1/h``.
        rtol: Relative tolerance, against the largest derivative with respect to the same input.
        atol: Absolute tolerance.
        directions: None for every coordinate, which costs two evaluations each, or the number of
            random directions for each input.
        seed: Of cotangents and directions.

    Returns:
        The largest difference divided by ``atol/rtol`` plus the largest derivative of that input:
        a relative error that is at most ``rtol``.

    Raises:
        SettingsError: If an input is not float64, or ``rtol`` or ``eps`` is not positive.
        AssertionError: If the function's result does not depend on the inputs for autograd, or
            with a table of the worst derivatives.

    Example:
        >>> x = torch.tensor([0.3, 0.7], dtype=torch.float64)
        >>> check_gradients(torch.sin, [x]) < 1e-8
        True
    """
    if not (eps > 0 and rtol > 0):
        raise SettingsError(f"eps and rtol must be positive, got eps={eps}, rtol={rtol}")
    named = _named(inputs)
    generator = torch.Generator().manual_seed(seed)

    def evaluate(values: Mapping[str, Tensor]) -> Tensor:
        is_mapping = isinstance(inputs, Mapping)
        result = function(**values) if is_mapping else function(*values.values())
        parts = [result] if isinstance(result, Tensor) else list(result)
        return torch.cat([part.reshape(-1) for part in parts])

    cotangents, gradients = _reverse(evaluate, named, generator)
    worst = 0.0
    rows: list[tuple[str, str, float, float, float]] = []
    for name, value in named.items():
        labels, vectors, lengths = _directions(value, directions, eps, generator)
        differences = [
            _difference(evaluate, named, name, vector, length)
            for vector, length in zip(vectors, lengths, strict=True)
        ]
        numeric = torch.stack(differences) @ cotangents.T
        analytic = vectors @ gradients[name].T
        error = (analytic - numeric).abs() / (atol / rtol + numeric.abs().max())
        error = error.nan_to_num(nan=torch.inf)
        worst = max(worst, float(error.max()))
        largest, which = error.max(1)
        rows += [
            (name, label, float(analytic[i, w]), float(numeric[i, w]), float(largest[i]))
            for i, (label, w) in enumerate(zip(labels, which.tolist(), strict=True))
        ]
    if worst > rtol:
        rows.sort(key=lambda row: row[-1], reverse=True)
        header = ("input", "direction", "autograd", "central difference", "relative error")
        raise AssertionError(
            f"gradients differ from central differences by {worst:.3g} relative, allowed "
            f"rtol={rtol:g} (atol={atol:g}, eps={eps:g}); the worst:\n"
            f"{text_table(header, rows[:SHOWN_ROWS])}"
        )
    return worst


def _named(inputs: Sequence[Tensor] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(inputs, Mapping):
        named = dict(inputs)
    else:
        named = {str(position): value for position, value in enumerate(inputs)}
    for name, value in named.items():
        if value.dtype != torch.float64 or not value.numel():
            raise SettingsError(
                f"inputs: {name} has type {value.dtype} and {value.numel()} entries, expected "
                "torch.float64 and at least one; differences of float32 numbers are too rough"
            )
    return named


def _reverse(
    evaluate: Callable[[Mapping[str, Tensor]], Tensor],
    named: Mapping[str, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: value.detach().clone().requires_grad_() for name, value in named.items()}
    output = evaluate(leaves)
    if not output.requires_grad:
        raise AssertionError(
            "the result is cut off from the inputs: it has no grad_fn; look for detach, item, "
            "numpy, no_grad or an integer type on the way"
        )
    cotangents = _normal((_COTANGENTS, output.numel()), output.device, generator)
    rows = [
        torch.autograd.grad(
            output, list(leaves.values()), w, retain_graph=True, materialize_grads=True
        )
        for w in cotangents.to(output.dtype)
    ]
    columns = zip(leaves, zip(*rows, strict=True), strict=True)
    return cotangents, {name: torch.stack([g.flatten() for g in grads]) for name, grads in columns}


def _directions(
    value: Tensor, count: int | None, eps: float, generator: torch.Generator
) -> tuple[list[str], Tensor, list[float]]:
    if count is None:
        labels = [
            str(tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), value.shape)))
            for flat in range(value.numel())
        ]
        lengths = (eps * value.detach().abs().clamp(min=1).flatten()).tolist()
        return labels, torch.eye(value.numel(), dtype=value.dtype, device=value.device), lengths
    vectors = _normal((count, value.numel()), value.device, generator)
    vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return [f"random {i}" for i in range(count)], vectors, [eps] * count


@torch.no_grad()
def _difference(
    evaluate: Callable[[Mapping[str, Tensor]], Tensor],
    named: Mapping[str, Tensor],
    name: str,
    direction: Tensor,
    length: float,
) -> Tensor:
    offset = (length * direction).reshape(named[name].shape)
    # Each call gets its own copies: a function that writes into its inputs must not spoil the next.
    ahead, behind = (
        evaluate({key: value.detach().clone() for key, value in named.items()} | {name: shifted})
        for shifted in (named[name].detach() + offset, named[name].detach() - offset)
    )
    return (ahead - behind).double() / (2 * length)


def _normal(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU so that a seed means the same numbers on every device.
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device)
