r"""Boundary and initial values built into a field.

A lift changes the output of a network so that given values hold exactly, whatever the network says:
:math:`u = g + d\,N` with an extension g of the values and a function d that vanishes where they
are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constraints._tensors import check_real
from constraints.closed_forms._inputs import check_batch, read_settings, read_values
from solvers.core import SettingsError, ShapeError, check_count, check_positive, is_mapped

__all__ = ["DirichletLift", "InitialLift", "PeriodicLift"]


class DirichletLift(nn.Module):
    r"""Values on the faces of a box, by transfinite interpolation.

    .. math:: u(x) = N(x) + \sum_k \bigl[(1-\xi_k)\,(g - N)|_{\xi_k=0}
                                        + \xi_k\,(g - N)|_{\xi_k=1}\bigr]

    one axis after the other: after axis k the faces of that axis hold, and those of earlier axes
    stay because there g - N is already zero. The change fades linearly from face to face.

    Args:
        axes: Axes of the field whose two ends are given, counted from the back (negative).

    Raises:
        SettingsError: If an axis is no negative whole number or given twice.

    Backward: exact, to field and values. NaN stays in its item.

    Reference: Gordon & Hall 1973, "Transfinite element methods".

    Example:
        >>> import torch
        >>> fix = DirichletLift(axes=(-1,))
        >>> fix(torch.tensor([0.3, 0.4, 0.5]), [(0.0, 1.0)])
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(self, axes: Sequence[int]):
        super().__init__()
        numbers = tuple(axes) if isinstance(axes, Iterable) else ()
        are_axes = all(isinstance(axis, int) and axis < 0 for axis in numbers)
        if not numbers or not are_axes or len(set(numbers)) != len(numbers):
            raise SettingsError(
                f"axes: got {axes!r}, expected different negative whole numbers, as (-2, -1); "
                "-1 is the last axis"
            )
        self.axes = numbers

    def forward(
        self,
        field: Float[Tensor, "..."],
        values: Sequence[tuple[Tensor | float, Tensor | float]],
    ) -> Float[Tensor, "..."]:
        """Put the values on the faces.

        Args:
            field: Values at nodes, the first and last node of each given axis on its faces.
            values: For each axis the values at its first and its last nodes, numbers or tensors
                that broadcast with the field without that axis. Where faces meet they must agree;
                if they do not, the later axis holds.

        Returns:
            Field with these values at the faces.

        Raises:
            ShapeError: If there is not one pair an axis, an axis has fewer than two nodes, or
                values do not fit their face.
            SettingsError: If the field is no real tensor, or values are not real pairs.
        """
        check_real("field", field)
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise SettingsError(
                f"values: got {type(values).__name__}, expected a list with a pair (first, last) "
                "for each axis, as [(0.0, 1.0)]"
            )
        if len(values) != len(self.axes):
            raise ShapeError(
                f"values: got {len(values)} pairs, expected {len(self.axes)}, one for each of axes "
                f"{self.axes}"
            )
        for number, (axis, pair) in enumerate(zip(self.axes, values, strict=True)):
            if -axis > field.ndim or field.shape[axis] < 2:
                raise ShapeError(
                    f"field: got shape {tuple(field.shape)}, expected 2 or more nodes on axis "
                    f"{axis}"
                )
            if not isinstance(pair, Sequence) or len(pair) != 2:
                raise SettingsError(
                    f"values[{number}]: got {pair!r}, expected a pair: values at the first and at "
                    f"the last node of axis {axis}"
                )
            face = field.select(axis, 0)
            ends = [
                _on_face(f"values[{number}][{end}]", value, face) for end, value in enumerate(pair)
            ]
            field = _with_ends(field, axis, ends[0], ends[1])
        return field


def _on_face(name: str, value: Tensor | float, face: Tensor) -> Tensor:
    end = read_values(name, value, dtype=face.dtype, device=face.device)
    try:
        return end.expand(face.shape)
    except RuntimeError as error:
        raise ShapeError(
            f"{name}: got shape {tuple(end.shape)}, expected one that broadcasts to "
            f"{tuple(face.shape)}, the field without that axis"
        ) from error


def _with_ends(field: Tensor, axis: int, first: Tensor, last: Tensor) -> Tensor:
    n = field.shape[axis]
    shape = [1] * field.ndim
    shape[axis] = n
    xi = torch.linspace(0.0, 1.0, n, dtype=field.dtype, device=field.device).reshape(shape)
    ends = [first.unsqueeze(axis), last.unsqueeze(axis)]
    low = ends[0] - field.narrow(axis, 0, 1)
    high = ends[1] - field.narrow(axis, n - 1, 1)
    inside = (field + (1.0 - xi) * low + xi * high).narrow(axis, 1, n - 2)
    # Set, not added: the values at the ends are exact.
    return torch.cat([ends[0], inside, ends[1]], axis)


class InitialLift(nn.Module):
    r"""An initial field kept exactly: :math:`u(t) = u_0 + s(t)\,N(t)` with :math:`s(0) = 0`.

    Args:
        duration: Time over which s grows [s]; :math:`s = 1 - e^{-t/T}`, or your own function of t.

    Raises:
        SettingsError: If the duration is not positive and finite.

    Backward: exact, any order. NaN stays in its item.

    Example:
        >>> import torch
        >>> keep = InitialLift(2.0)
        >>> keep(torch.ones(3), torch.full((3,), 5.0), torch.tensor([0.0, 2.0, 4.0]))
        tensor([5.0000, 5.6321, 5.8647])
    """

    def __init__(self, duration: float | Callable[[Tensor], Tensor] = 1.0):
        super().__init__()
        if not callable(duration):
            check_positive("duration", duration)
            if duration == math.inf:
                raise SettingsError("duration: got inf, expected a finite time [s]")
        self.duration = duration

    def forward(
        self,
        output: Float[Tensor, "..."],
        initial: Float[Tensor, "..."],
        time: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        """Blend the output of a network with the initial field.

        Args:
            output: What the network says, any shape.
            initial: The field at time zero, a number or a tensor; broadcasts with ``output``.
            time: Time since the start [s], likewise.

        Returns:
            The field, equal to ``initial`` where the time is zero.

        Raises:
            ShapeError: If shapes do not fit together.
            SettingsError: If an argument is not real, or an own function does not vanish at time
                zero.
        """
        check_real("output", output)
        initial, time = (
            _like(name, value, output) for name, value in (("initial", initial), ("time", time))
        )
        if callable(self.duration):
            growth = self._own_growth(self.duration, time)
        else:
            growth = -torch.expm1(-time / self.duration)
        fields = {"output": output, "initial": initial, "time": time, "duration(time)": growth}
        check_batch({name: one.shape for name, one in fields.items()}, what="shape")
        return initial + growth * output

    @staticmethod
    def _own_growth(function: Callable[[Tensor], Tensor], time: Tensor) -> Tensor:
        growth = function(time)
        if not isinstance(growth, Tensor) or not growth.is_floating_point():
            got = growth.dtype if isinstance(growth, Tensor) else type(growth).__name__
            raise SettingsError(
                f"duration: the function gave {got}, expected a tensor of real numbers, as t**2"
            )
        if growth.shape == time.shape and not is_mapped(growth, time):
            grown = (time.detach() == 0) & (growth.detach() != 0)
            if bool(grown.any()):
                raise SettingsError(
                    f"duration: the function is {float(growth[grown][0]):g} at time zero, expected "
                    "0, so that the initial field holds there; subtract its value at zero"
                )
        return growth


def _like(name: str, value: Tensor | float, output: Tensor) -> Tensor:
    """Numbers and whole-number tensors in the type of the output, other tensors as they are."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    dtype = value.dtype if isinstance(value, Tensor) and is_float else output.dtype
    return read_values(name, value, dtype=dtype, device=output.device)


class PeriodicLift(nn.Module):
    r"""Coordinates that make any network periodic: :math:`x \mapsto (\cos kwx, \sin kwx)_k`.

    Args:
        periods: Period of each coordinate; infinite for one that stays as it is.
        harmonics: Number of multiples k of the base frequency.

    Raises:
        SettingsError: If there is no period, one is not positive, or harmonics is no whole number
            from 1.

    Backward: exact, any order. NaN and infinity stay in their item.

    Example:
        >>> import torch
        >>> lift = PeriodicLift((1.0, float("inf")))
        >>> x = torch.tensor([[0.25, 7.0], [1.25, 7.0]], dtype=torch.float64)
        >>> bool((lift(x)[0] - lift(x)[1]).abs().max() < 1e-14)
        True
    """

    def __init__(self, periods: Sequence[float], *, harmonics: int = 1):
        super().__init__()
        check_count("harmonics", harmonics)
        self.periods = read_settings("periods", periods)
        if not self.periods:
            raise SettingsError("periods: got none, expected one for each coordinate, as (1.0,)")
        self.harmonics = harmonics

    @property
    def features(self) -> int:
        """Number of coordinates after the lift."""
        return sum(1 if math.isinf(period) else 2 * self.harmonics for period in self.periods)

    def forward(self, x: Float[Tensor, "*B d"]) -> Float[Tensor, "*B features"]:
        """Replace coordinates by periodic functions of them.

        Args:
            x: Coordinates along the last axis.

        Returns:
            The features of a network.

        Raises:
            ShapeError: If the last axis is not one coordinate for each period.
            SettingsError: If x is no real tensor.
        """
        check_real("x", x)
        if x.ndim == 0 or x.shape[-1] != len(self.periods):
            raise ShapeError(
                f"x: got shape {tuple(x.shape)}, expected (..., {len(self.periods)}), a "
                "coordinate for each period"
            )
        parts = []
        for period, coordinate in zip(self.periods, x.unbind(-1), strict=True):
            if math.isinf(period):
                parts.append(coordinate)
                continue
            # A whole number of periods away is the same point, also in rounding.
            phase = 2.0 * math.pi * torch.remainder(coordinate / period, 1.0)
            for k in range(1, self.harmonics + 1):
                parts += [torch.cos(k * phase), torch.sin(k * phase)]
        return torch.stack(parts, -1)
