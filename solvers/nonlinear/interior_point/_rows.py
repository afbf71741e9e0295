"""Rows of a cone program for the reference: equalities, an orthant, runs of equal cones.

Blocks of a second-order cone are dense: what the native text does in a few products, the reference
writes as a matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from solvers.nonlinear.cones import second_order_inverse_step, second_order_product

__all__ = ["Rows"]

_TINY = 1e-290


class Rows:
    """Algebra of slacks and multipliers, vectors of shape ``(B, p + m)``.

    Args:
        p: Equalities, the first rows.
        rows: Number of all rows.
        cones: Sizes of the second-order cones, the last rows.
        like: Tensor of the type and on the device of all vectors.
    """

    def __init__(self, p: int, rows: int, cones: tuple[int, ...], like: Tensor):
        self.p, self.flat = p, rows - sum(cones)
        self.degree = self.flat - p + len(cones)
        index = torch.arange(rows, device=like.device)
        self.is_cone = index >= p
        self.is_orthant = self.is_cone & (index < self.flat)
        self.runs: list[tuple[int, int, int]] = []
        start = self.flat
        for size, group in groupby(cones):
            count = len(list(group))
            self.runs.append((start, count, size))
            start += count * size
        self.unit = self.is_orthant.to(like.dtype)
        for start, count, size in self.runs:
            self.unit[start : start + count * size : size] = 1.0

    def blocks(self, *vectors: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """The second-order cones: where they are, and the vectors as ``(..., count, size)``."""
        for start, count, size in self.runs:
            place = slice(start, start + count * size)
            yield place, [a[..., place].unflatten(-1, (count, size)) for a in vectors]

    def smallest(self, a: Tensor) -> Tensor:
        """Smallest eigenvalue over all cones."""
        values = [a.new_full((*a.shape[:-1], 1), torch.inf)]
        values.append(a.where(self.is_orthant, torch.inf))
        for _, (b,) in self.blocks(a):
            values.append(b[..., 0] - b[..., 1:].norm(dim=-1))
        return torch.cat(values, -1).amin(-1)

    def inverse_step(self, a: Tensor, d: Tensor) -> Tensor:
        """One over the longest step from ``a`` along ``d`` inside the cones."""
        values = [a.new_zeros(*a.shape[:-1], 1), (-d / a).where(self.is_orthant, 0.0)]
        for _, (b, e) in self.blocks(a, d):
            tail, tail_d = list(b[..., 1:].unbind(-1)), list(e[..., 1:].unbind(-1))
            inverse = 1.0 / _determinant(b)
            values.append(second_order_inverse_step(b[..., 0], tail, e[..., 0], tail_d, inverse))
        return torch.cat(values, -1).amax(-1).clamp(min=0.0)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Jordan product; zero for equalities."""
        out = (a * b).where(self.is_orthant, 0.0)
        for place, (c, d) in self.blocks(a, b):
            head, tail = second_order_product(
                c[..., 0], list(c[..., 1:].unbind(-1)), d[..., 0], list(d[..., 1:].unbind(-1))
            )
            out[..., place] = torch.stack([head, *tail], -1).flatten(-2)
        return out

    def divide(self, a: Tensor, b: Tensor) -> Tensor:
        """Solve ``b o x = a`` for x; zero for equalities."""
        out = (a / b).where(self.is_orthant, 0.0)
        for place, (c, d) in self.blocks(a, b):
            head = (d[..., :1] * c[..., :1] - _tail_dot(d, c)) / _determinant(d)[..., None]
            tail = (c[..., 1:] - head * d[..., 1:]) / d[..., :1]
            out[..., place] = torch.cat([head, tail], -1).flatten(-2)
        return out

    def scaling(self, s: Tensor, z: Tensor, root_penalty: Tensor) -> list[Tensor]:
        """Nesterov-Todd scaling W with ``W z = W^-1 s``: ``W^-1`` by rows, then its blocks."""
        ratio = (z / s).where(self.is_orthant, 1.0).sqrt()
        parts = [ratio.where(self.is_cone, root_penalty)]
        for _, (a, b) in self.blocks(s, z):
            size_a, size_b = _determinant(a).sqrt()[..., None], _determinant(b).sqrt()[..., None]
            a, b = a / size_a, b / size_b
            half = ((1.0 + (a * b).sum(-1, keepdim=True)) / 2.0).sqrt()
            mirror = torch.cat([b[..., :1], -b[..., 1:]], -1)
            v = (a + mirror) / (2.0 * half)
            head, tail = v[..., :1, None], v[..., 1:, None]
            identity = torch.eye(tail.shape[-2], dtype=s.dtype, device=s.device)
            inner = identity + tail * tail.mT / (1.0 + head)
            inverse = torch.cat(
                [torch.cat([head, -tail.mT], -1), torch.cat([-tail, inner], -1)], -2
            )
            parts.append(inverse * (size_b / size_a).sqrt()[..., None])
        return parts

    def project(self, v: Tensor) -> Tensor:
        """Nearest point of the cones; zero for equalities."""
        out = v.clamp(min=0.0).where(self.is_orthant, 0.0)
        for place, (a,) in self.blocks(v):
            head, tail = a[..., :1], a[..., 1:]
            norm = tail.norm(dim=-1, keepdim=True)
            low, high = (head - norm).clamp(min=0.0), (head + norm).clamp(min=0.0)
            tail = tail * (high - low) / (2.0 * norm.clamp(min=_TINY))
            out[..., place] = torch.cat([(low + high) / 2.0, tail], -1).flatten(-2)
        return out

    def active(self, v: Tensor, penalty: Tensor) -> list[Tensor]:
        """``(I - P') P'^-1`` for the projection P at ``v``: by rows, then blocks."""
        rows = penalty.where(v < 0.0, 0.0).where(self.is_orthant, 0.0)
        parts = [rows.where(self.is_cone, penalty)]
        for _, (a,) in self.blocks(v):
            head, tail = a[..., :1], a[..., 1:]
            norm = tail.norm(dim=-1, keepdim=True)
            low, high, u = head - norm, head + norm, tail / norm.clamp(min=_TINY)
            most = penalty[..., None]
            below, above = most * (low < 0.0), most * (high < 0.0)
            side = torch.minimum((-low / high.clamp(min=_TINY)).clamp(min=0.0), most)
            corner, edge = (below + above) / 2.0, (above - below) / 2.0 * u
            identity = torch.eye(u.shape[-1], dtype=v.dtype, device=v.device)
            outer = u[..., None] * u[..., None, :]
            inner = side[..., None] * (identity - outer) + corner[..., None] * outer
            top = torch.cat([corner, edge], -1)[..., None, :]
            parts.append(torch.cat([top, torch.cat([edge[..., None], inner], -1)], -2))
        return parts

    def apply(self, parts: list[Tensor], a: Tensor) -> Tensor:
        """Multiply vectors ``(B, rows)``, or the rows of matrices ``(B, rows, n)``."""
        is_matrix = a.ndim > parts[0].ndim
        out = (parts[0][..., None] if is_matrix else parts[0]) * a
        for (start, count, size), part in zip(self.runs, parts[1:], strict=True):
            place = slice(start, start + count * size)
            if is_matrix:
                block = part @ a[..., place, :].unflatten(-2, (count, size))
                out[..., place, :] = block.flatten(-3, -2)
            else:
                block = part @ a[..., place].unflatten(-1, (count, size))[..., None]
                out[..., place] = block[..., 0].flatten(-2)
        return out


def _tail_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a[..., 1:] * b[..., 1:]).sum(-1, keepdim=True)


def _determinant(a: Tensor) -> Tensor:
    """``(a0 - |a1|)(a0 + |a1|)``, kept above rounding."""
    norm = a[..., 1:].norm(dim=-1)
    floor = a[..., 0].square() * 1e-15 + _TINY
    return torch.maximum((a[..., 0] - norm) * (a[..., 0] + norm), floor)
