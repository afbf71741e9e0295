"""From what the user gave to a batch of programs, with errors that name the argument."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
    for name, value in (("Q", Q), ("q", q), ("G", G), ("h", h), ("A", A), ("b", b)):
        if not isinstance(value, Tensor) and (value is not None or name in "Qq"):
            raise SettingsError(
                f"{name}: got {type(value).__name__}, expected a tensor; convert it with "
                "torch.as_tensor"
            )
        if value is not None:
            check_plain(name, value)
    for matrix, right, names in ((G, h, "Gh"), (A, b, "Ab")):
        if (matrix is None) != (right is None):
            there, missing = (names[0], names[1]) if right is None else (names[1], names[0])
            raise SettingsError(
                f"{missing}: got None with {there} given, expected both or neither; "
                f"{names[0]} holds the rows and {names[1]} their right-hand sides"
            )
    n = q.shape[-1] if q.ndim else 0
    if n == 0:
        raise ShapeError(
            f"q: got shape {tuple(q.shape)}, expected (n,) or (B, n) with one unknown or more"
        )
    G, h = (q.new_zeros(0, n), q.new_zeros(0)) if G is None or h is None else (G, h)
    A, b = (q.new_zeros(0, n), q.new_zeros(0)) if A is None or b is None else (A, b)
    batch = _common_batch(Q, q, G, h, A, b)
    if not q.is_floating_point():
        raise SettingsError(f"q: got type {q.dtype}, expected a floating-point type; use .double()")
    if cones and sum(cones) > h.shape[-1]:
        raise ShapeError(
            f"h: got {h.shape[-1]} rows, expected at least {sum(cones)}, the rows of the "
            "second-order cones; they are the last rows of G and h"
        )
    if q.dtype is torch.float64:
        return (Q, q, G, h, A, b), batch
    return (Q.double(), q.double(), G.double(), h.double(), A.double(), b.double()), batch


def _common_batch(Q: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> int | None:
    batch: int | None = None
    rows = {
        "n": q.shape[-1],
        "m": h.shape[-1] if h.ndim else -1,
        "p": b.shape[-1] if b.ndim else -1,
    }
    n, m, p = rows.values()
    dtype, device = q.dtype, q.device
    for name, tensor, axes, expected in (
        ("Q", Q, "nn", (n, n)),
        ("q", q, "n", (n,)),
        ("G", G, "mn", (m, n)),
        ("h", h, "m", (m,)),
        ("A", A, "pn", (p, n)),
        ("b", b, "p", (p,)),
    ):
        own = tensor.shape
        extra = len(own) - len(axes)
        if own[extra:] != expected or not 0 <= extra <= 1:
            words = ", ".join(axes)
            raise ShapeError(
                f"{name}: got shape {tuple(own)}, expected ({words}) or (B, {words}) with "
                f"{', '.join(f'{axis} = {rows[axis]}' for axis in dict.fromkeys(axes))}; "
                "n is the last size of q, m of h, p of b"
            )
        if extra:
            if batch is not None and own[0] != batch:
                raise ShapeError(
                    f"{name}: got a batch of {own[0]}, expected {batch} as in an earlier argument; "
                    "leave out the batch axis of what all items share"
                )
            batch = own[0]
        if tensor.dtype is not dtype or tensor.device != device:
            raise SettingsError(
                f"{name}: got {tensor.dtype} on {tensor.device}, expected {q.dtype} on {q.device} "
                f"as for q; convert it with {name}.to(q)"
            )
    return batch
