"""The state of a batch of mechanisms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from physim.dynamics._conversion import as_double
from solvers.core import SettingsError, ShapeError, check_count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """Configuration and velocity of a batch, the whole memory of a simulation.

    Attributes:
        q: Configuration in MuJoCo's order [m, rad, unit quaternions scalar first], shape
            ``(B, nq)``.
        v: Velocity of the interval that ended at ``q`` [m/s, rad/s], shape ``(B, nv)``. Zero at
            rest in contact. Angular velocities of free and ball joints are in body axes.
        interval: Length of that interval [s], shape ``(B,)``; None means the simulator's time
            step. It differs after a step that was taken in parts.
        impulses: Constraint impulses of that interval, shape ``(B, w)``, from which the next solve
            starts; None starts from none. Not part of the physical state: the solution of a step
            does not depend on them where it is unique. No gradient passes.
    """

    q: Float[Tensor, "batch nq"]
    v: Float[Tensor, "batch nv"]
    interval: Float[Tensor, " batch"] | None = None
    impulses: Float[Tensor, "batch w"] | None = None

    @property
    def batch(self) -> int:
        """Number of items."""
        return int(self.q.shape[0])

    def __getitem__(self, items: int | slice | Tensor) -> State:
        """Some items as a state; a single index keeps the batch dimension.

        Raises:
            IndexError: If there is no such item.
        """
        if isinstance(items, int):
            if not -self.batch <= items < self.batch:
                raise IndexError(f"item {items} of a state with {self.batch} items")
            items = slice(items, items + 1 or None)
        return self._map(lambda y: y[items])

    def detach(self) -> State:
        """The same numbers without gradient history."""
        return self._map(lambda y: y.detach())

    def repeat(self, batch: int) -> State:
        """The items repeated ``batch`` times, all items of one copy together."""
        return self._map(lambda y: y.repeat(batch, *[1] * (y.dim() - 1)))

    def _map(self, change: Callable[[Tensor], Tensor]) -> State:
        interval = None if self.interval is None else change(self.interval)
        impulses = None if self.impulses is None else change(self.impulses)
        return State(q=change(self.q), v=change(self.v), interval=interval, impulses=impulses)

    @staticmethod
    def from_mujoco(data: Any, *, batch: int = 1) -> State:
        """Copy ``qpos`` and ``qvel`` of a ``mujoco.MjData``.

        MuJoCo's velocity after a semi-implicit step means what `v` means here.

        Args:
            data: Anything with arrays ``qpos`` and ``qvel``.
            batch: Number of copies.

        Raises:
            SettingsError: If it has no such arrays.
            ShapeError: If they are no rows of numbers.
        """
        check_count("batch", batch)
        rows = []
        for name in ("qpos", "qvel"):
            value = getattr(data, name, None)
            if value is None:
                raise SettingsError(
                    f"data is a {type(data).__name__} without {name}, expected a mujoco.MjData; "
                    "make one with mujoco.MjData(model)"
                )
            row = as_double(f"data.{name}", value)
            if row.dim() != 1:
                raise ShapeError(
                    f"data.{name} has shape {tuple(row.shape)}, expected one row of numbers; take "
                    "one MjData at a time, or physim.State(q=..., v=...) for a batch"
                )
            rows.append(row)
        q, v = (row.expand(batch, -1).clone() for row in rows)
        return State(q=q, v=v)

    def __repr__(self) -> str:
        """Shapes only."""
        return f"State(batch={self.batch}, nq={self.q.shape[1]}, nv={self.v.shape[1]})"
