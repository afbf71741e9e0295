"""From what the user gave to a batch of programs, with errors that name the argument."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from constraints._tensors import check_plain
from solvers.core import SettingsError, ShapeError

__all__ = ["Inputs", "read_inputs"]

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def read_inputs(
    Q: Tensor,
    q: Tensor,
    G: Tensor | None,
    h: Tensor | None,
    A: Tensor | None,
    b: Tensor | None,
    cones: Sequence[int],
) -> tuple[Inputs, int | None]:
    """Check shapes and fill in what is missing.

    Args:
        Q: ``(n, n)`` or ``(B, n, n)``.
        q: ``(n,)`` or ``(B, n)``.
        G: ``(m, n)`` or ``(B, m, n)``, or None.
        h: ``(m,)`` or ``(B, m)``, or None.
        A: ``(p, n)`` or ``(B, p, n)``, or None.
        b: ``(p,)`` or ``(B, p)``, or None.
        cones: Sizes of second-order cones.

    Returns:
        The six tensors, and the number of items; None if no tensor has a batch axis.

    Raises:
        ShapeError: If a shape does not fit.
        SettingsError: If types or devices differ, one of a pair is missing, or a tensor is inside
            of a `torch.func` transform.
    """
    given = (Q, q, G, h, A, b)
    for value in given:
        if (
            not isinstance(value, Tensor)
            or is_functorch_wrapped_tensor(value)
            or value.layout is not torch.strided
        ):
            _check_kinds(*given)
            break
    if G is None or h is None:
        _check_pair("G", G, "h", h)
        G, h = _no_rows(q)
    if A is None or b is None:
        _check_pair("A", A, "b", b)
        A, b = _no_rows(q)
    inputs = (Q, q, G, h, A, b)
    batch = _common_batch((Q.shape, q.shape, G.shape, h.shape, A.shape, b.shape), sum(cones))
    for one in inputs:
        if one.dtype is not torch.float64 or not one.is_cpu:
            return _agree(inputs), batch
    return inputs, batch


def _agree(inputs: Inputs) -> Inputs:
    """Check that types and devices are those of q, and go to double precision."""
    q = inputs[1]
    for name, tensor in zip("QqGhAb", inputs, strict=True):
        if tensor.dtype is not q.dtype or tensor.device != q.device:
            raise SettingsError(
                f"{name}: got {tensor.dtype} on {tensor.device}, expected {q.dtype} on {q.device} "
                f"as for q; convert it with {name}.to(q)"
            )
    if not q.is_floating_point():
        raise SettingsError(f"q: got type {q.dtype}, expected a floating-point type; use .double()")
    Q, q, G, h, A, b = (tensor.double() for tensor in inputs)
    return Q, q, G, h, A, b


def _check_kinds(*given: object) -> None:
    """Refuse what is neither a plain tensor nor an absent pair."""
    for name, value in zip("QqGhAb", given, strict=True):
        if isinstance(value, Tensor):
            check_plain(name, value)
            if value.layout is not torch.strided:
                raise SettingsError(
                    f"{name}: got a tensor of {value.layout}, expected a dense one; use .to_dense()"
                )
        elif value is not None or name in "Qq":
            raise SettingsError(
                f"{name}: got {type(value).__name__}, expected a tensor; convert it with "
                "torch.as_tensor"
            )


def _check_pair(rows: str, matrix: Tensor | None, right: str, vector: Tensor | None) -> None:
    if (matrix is None) != (vector is None):
        there, missing = (rows, right) if vector is None else (right, rows)
        raise SettingsError(
            f"{missing}: got None with {there} given, expected both or neither; "
            f"{rows} holds the rows and {right} their right-hand sides"
        )


def _no_rows(q: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_zeros(0, q.shape[-1] if q.ndim else 0), q.new_zeros(0)


@lru_cache(maxsize=256)
def _common_batch(shapes: tuple[torch.Size, ...], cone_rows: int) -> int | None:
    """Number of items; None without a batch axis."""
    _, q, _, h, _, b = shapes
    n = q[-1] if q else 0
    if n == 0:
        raise ShapeError(
            f"q: got shape {tuple(q)}, expected (n,) or (B, n) with one unknown or more"
        )
    rows = {"n": n, "m": h[-1] if h else -1, "p": b[-1] if b else -1}
    batch: int | None = None
    # Vectors first, since their sizes are what matrices have to fit.
    order = sorted(zip("QqGhAb", shapes, ("nn", "n", "mn", "m", "pn", "p"), strict=True), key=_axes)
    for name, own, axes in order:
        extra = len(own) - len(axes)
        if own[extra:] != tuple(rows[axis] for axis in axes) or not 0 <= extra <= 1:
            words = ", ".join(axes)
            sizes = [f"{axis} = {rows[axis]}" for axis in dict.fromkeys(axes) if rows[axis] >= 0]
            raise ShapeError(
                f"{name}: got shape {tuple(own)}, expected ({words}) or (B, {words})"
                f"{' with ' if sizes else ''}{', '.join(sizes)}; "
                "n is the last size of q, m of h, p of b"
            )
        if extra:
            if batch is not None and own[0] != batch:
                raise ShapeError(
                    f"{name}: got a batch of {own[0]}, expected {batch} as in an earlier argument; "
                    "leave out the batch axis of what all items share"
                )
            batch = own[0]
    if cone_rows > rows["m"]:
        raise ShapeError(
            f"h: got {rows['m']} rows, expected at least {cone_rows}, the rows of the "
            "second-order cones; they are the last rows of G and h"
        )
    return batch


def _axes(entry: tuple[str, torch.Size, str]) -> int:
    return len(entry[2])
