"""Averages of iterates: first and second moment of parameters along a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["IterateAverage"]

_LARGEST = 4096


class IterateAverage:
    r"""Running mean of parameters, and of their outer product where asked for.

    The average of a chain that never comes near the answer can be near it, where the last iterate
    is not; and of a chain that samples a Gaussian posterior it has half the mean square error of
    the last iterate. The second moment serves where the sign of the answer is lost.

    Args:
        params: Tensors of one type and device; a module's parameters.
        second_moment: Keep :math:`\overline{\theta\theta^\top}` as well, n squared numbers.
        burn_in: Calls of :meth:`update` that do not count.
        every: Take every so many of the others.

    Raises:
        SettingsError: If there are no parameters, or too many for a second moment.

    Reference: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging";
    Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".

    Example:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> average = IterateAverage([x])
        >>> for value in (1.0, 3.0):
        ...     _ = x.data.fill_(value)
        ...     average.update()
        >>> with average.applied():
        ...     inside = x.item()
        >>> inside, x.item()
        (2.0, 3.0)
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        second_moment: bool = False,
        burn_in: int = 0,
        every: int = 1,
    ) -> None:
        self.params = list(params)
        if not self.params:
            raise SettingsError("params: got none, expected at least one tensor")
        if burn_in < 0 or every < 1:
            raise SettingsError(
                f"burn_in, every: got {burn_in} and {every}, expected 0 or more and 1 or more"
            )
        vector = self._vector()
        if second_moment and vector.numel() > _LARGEST:
            raise SettingsError(
                f"second_moment: {vector.numel()} parameters need as many numbers squared, "
                f"expected at most {_LARGEST}; average a part of the parameters"
            )
        self.burn_in, self.every = burn_in, every
        self.calls = 0
        self.count = 0
        self._mean = torch.zeros_like(vector)
        self._second = vector.new_zeros(vector.numel(), vector.numel()) if second_moment else None

    @torch.no_grad()
    def update(self) -> None:
        """Take note of the present parameters; call it once a step."""
        self.calls += 1
        late = self.calls - self.burn_in
        if late <= 0 or (late - 1) % self.every:
            return
        self.count += 1
        vector = self._vector()
        self._mean += (vector - self._mean) / self.count
        if self._second is not None:
            self._second += (torch.outer(vector, vector) - self._second) / self.count

    def mean(self) -> Float[Tensor, " n"]:
        """Average of the iterates that count."""
        self._check()
        return self._mean.clone()

    def second_moment(self) -> Float[Tensor, "n n"]:
        """Average outer product."""
        self._check()
        if self._second is None:
            raise SettingsError("second_moment: was not kept; pass second_moment=True")
        return self._second.clone()

    def top_eigenvector(self) -> Float[Tensor, " n"]:
        """Top eigenvector of the second moment; its sign has no meaning."""
        vectors: Tensor = torch.linalg.eigh(self.second_moment()).eigenvectors
        return vectors[:, -1]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mean in place of the parameters inside a ``with`` block."""
        self._check()
        kept = [p.detach().clone() for p in self.params]
        try:
            self._write(self._mean)
            yield
        finally:
            with torch.no_grad():
                for p, old in zip(self.params, kept, strict=True):
                    p.copy_(old)

    @torch.no_grad()
    def _write(self, vector: Tensor) -> None:
        place = 0
        for p in self.params:
            p.copy_(vector[place : place + p.numel()].view_as(p))
            place += p.numel()

    def _vector(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.params])

    def _check(self) -> None:
        if not self.count:
            raise SettingsError(
                f"average: holds nothing after {self.calls} calls with burn_in={self.burn_in}, "
                "expected at least one later update"
            )
