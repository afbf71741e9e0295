r"""Channels: which derivatives travel through the layers of a network together.

Channel 0 is the value, every other one a linear differential operator
:math:`L = \sum_\alpha a_\alpha \partial_\alpha` with coefficients that do not depend on the point.
Through an activation :math:`h = \varphi(z)` it goes by the formula of Faà di Bruno,

.. math:: L h = \varphi'(z) \, L z + \sum_{m \ge 2} \varphi^{(m)}(z) \sum_\alpha a_\alpha
          \sum_{\pi} \prod_{B \in \pi} \partial_{\alpha_B} z,

with partitions :math:`\pi` of the axes of :math:`\alpha` into :math:`m` blocks. Only the first term
holds the channel itself, so one channel is enough for a whole operator, however many second
derivatives it sums: it is collapsed. What the blocks need are channels of their own.

Reference: Dangel et al. (2025), Collapsing Taylor Mode Automatic Differentiation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.derivatives._trace import MultiIndex, Trace
from solvers.kernels import evaluate, reverse, scalar

__all__ = ["Channel", "ChannelPlan", "Group", "group_ratios", "parallel_groups", "plan_channels"]

_PARALLEL = 1e-10
"""Largest sine of the angle between two derivatives of the residuals that count as parallel."""


@dataclass(frozen=True)
class Channel:
    """A linear differential operator.

    Attributes:
        members: Multi-indices; the coefficient of the first one is 1.
        slots: Places of the coefficients of the members in the table of weights; None for 1.
    """

    members: tuple[MultiIndex, ...]
    slots: tuple[int | None, ...]

    @property
    def order(self) -> int:
        """Order of the operator."""
        return max(len(index) for index in self.members)


@dataclass(frozen=True)
class ChannelPlan:
    """All channels of a network.

    Attributes:
        channels: The value first, then plain derivatives by order, then collapsed operators.
        weights: Number of coefficients that are numbers at run time.
    """

    channels: tuple[Channel, ...]
    weights: int

    @property
    def order(self) -> int:
        """Highest order."""
        return max(channel.order for channel in self.channels)

    def __len__(self) -> int:
        """Number of channels."""
        return len(self.channels)

    def place(self, index: MultiIndex) -> int:
        """Find the channel of a plain derivative."""
        return next(i for i, channel in enumerate(self.channels) if channel.members == (index,))

    def through(self, z: Sequence[Any], slopes: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
        r"""Carry all channels but the value through an activation.

        Args:
            z: Channels of the argument, generic scalars.
            slopes: :math:`\varphi', \varphi'', \dots` at the value, as many as `order`.
            weights: Table of coefficients.

        Returns:
            Channels 1, 2, ... of the result.
        """
        results = []
        for number, channel in enumerate(self.channels[1:], start=1):
            total = scalar.multiply(slopes[0], z[number])
            for m in range(2, channel.order + 1):
                curvature: Any = 0.0
                for index, slot in zip(channel.members, channel.slots, strict=True):
                    product = self._products(index, m, z)
                    weight = 1.0 if slot is None else weights[slot]
                    curvature = scalar.add(curvature, scalar.multiply(weight, product))
                total = scalar.add(total, scalar.multiply(slopes[m - 1], curvature))
            results.append(total)
        return results

    def _products(self, index: MultiIndex, blocks: int, z: Sequence[Any]) -> Any:
        total: Any = 0.0
        for partition, count in Counter(_partitions(index, blocks)).items():
            product: Any = float(count)
            for block in partition:
                product = scalar.multiply(product, z[self.place(block)])
            total = scalar.add(total, product)
        return total


def _partitions(index: MultiIndex, blocks: int) -> list[tuple[MultiIndex, ...]]:
    """All ways to share out the axes of a derivative among so many blocks."""
    if blocks > len(index) or blocks == 0:
        return [()] if not index and blocks == 0 else []
    if blocks == 1:
        return [(index,)]
    first, rest = index[0], index[1:]
    found = [tuple(sorted(((first,), *others))) for others in _partitions(rest, blocks - 1)]
    for others in _partitions(rest, blocks):
        for i, block in enumerate(others):
            joined = tuple(sorted((first, *block)))
            found.append(tuple(sorted((*others[:i], joined, *others[i + 1 :]))))
    return found


def plan_channels(groups: Sequence[Sequence[MultiIndex]]) -> ChannelPlan:
    """Lay out channels for groups of derivatives that are only needed as sums.

    Args:
        groups: Multi-indices; a group of several becomes one collapsed channel.

    Returns:
        The plan, with a channel for everything that the groups need on the way.
    """
    plain: set[MultiIndex] = {()}
    pending = [index for group in groups for index in group]
    while pending:
        index = pending.pop()
        for blocks in range(2, len(index) + 1):
            for partition in _partitions(index, blocks):
                pending += [block for block in partition if block not in plain]
                plain.update(partition)
    # a sum of channels that are there anyway, and at most one more, saves none
    count = -1
    while count != len(plain):
        count = len(plain)
        for group in groups:
            if len(set(group) - plain) <= 1:
                plain.update(group)
    channels = [Channel((i,), (None,)) for i in sorted(plain, key=lambda i: (len(i), i))]
    weights = 0
    for group in groups:
        if not plain.issuperset(group):
            slots = tuple(range(weights, weights + len(group) - 1))
            channels.append(Channel(tuple(group), (None, *slots)))
            weights += len(group) - 1
    return ChannelPlan(tuple(dict.fromkeys(channels)), weights)


@dataclass(frozen=True)
class Group:
    """Derivatives that the residuals hold only as one linear combination.

    Attributes:
        indices: Multi-indices.
        outputs: Outputs of the network that this is about.
        ratios: Coefficients over that of the first index, a list for each environment.
    """

    indices: list[MultiIndex]
    outputs: list[int]
    ratios: Tensor


def parallel_groups(trace: Trace, environments: Sequence[dict[str, Any]]) -> list[Group]:
    """Find derivatives that all residuals hold in one and the same linear combination.

    Args:
        trace: The residuals.
        environments: Inputs of the tape, each with other values of those coefficients that the
            combination may depend on.

    Returns:
        The groups; a derivative that is needed by itself stands in a group of its own.
    """
    found: list[Group] = []
    for output in sorted({number for number, _ in trace.outputs}):
        for indices, ratios in _groups_of(trace, output, environments):
            for group in found:
                if group.indices == indices and torch.allclose(group.ratios, ratios, rtol=1e-9):
                    group.outputs.append(output)
                    break
            else:
                found.append(Group(indices, [output], ratios))
    return found


def _groups_of(
    trace: Trace, output: int, environments: Sequence[dict[str, Any]]
) -> list[tuple[list[MultiIndex], Tensor]]:
    indices = sorted(
        (index for number, index in trace.outputs if number == output and index),
        key=lambda i: (len(i), i),
    )
    if not indices:
        return []
    slopes = [_slopes(trace, output, indices, e) for e in environments]
    groups: list[list[int]] = []
    for k in range(len(indices)):
        if not any(bool((s[k] != 0).any()) for s in slopes):
            continue
        for group in groups:
            if all(_are_parallel(s[group[0]], s[k]) for s in slopes):
                group.append(k)
                break
        else:
            groups.append([k])
    return [
        (
            [indices[k] for k in group],
            torch.stack([_ratios(s[group[0]], s[group]) for s in slopes]),
        )
        for group in groups
    ]


def group_ratios(trace: Trace, group: Group, environment: dict[str, Any]) -> list[float]:
    """Coefficients of a group's combination over the first one, at given inputs of the tape.

    Raises:
        SettingsError: If the residuals no longer hold the group as one combination.
    """
    rows = _slopes(trace, group.outputs[0], group.indices, environment)
    ratios = _ratios(rows[0], rows)
    error = (rows - ratios[:, None] * rows[0]).norm(dim=1)
    if not bool((error <= _PARALLEL * (1.0 + ratios.abs()) * rows[0].norm()).all()):
        raise SettingsError(
            "the derivatives of the residual no longer combine as they did when it was recorded; "
            "build the program again with the new coefficients"
        )
    return [float(ratio) for ratio in ratios]


def _ratios(first: Tensor, rows: Tensor) -> Tensor:
    return rows @ first / (first @ first)


def _slopes(
    trace: Trace, output: int, indices: Sequence[MultiIndex], environment: dict[str, Any]
) -> Tensor:
    """Derivatives of all residuals by derivatives of one output, shape ``(indices, M)``."""
    symbols = [trace.outputs[output, index] for index in indices]
    rows = []
    for residual in trace.residuals:
        values = evaluate(reverse([(residual, 1.0)], symbols), environment)
        count = len(environment["x"])
        rows.append(
            torch.stack([torch.as_tensor(v, dtype=torch.float64).expand(count) for v in values])
        )
    return torch.cat(rows, dim=1)


def _are_parallel(a: Tensor, b: Tensor) -> bool:
    size = a.norm() * b.norm()
    if not size > 0 or not torch.isfinite(size):
        return False
    return bool((a * (a @ b) / (a @ a) - b).norm() <= _PARALLEL * b.norm())
