"""The record that a rollout leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physim.dynamics._state import State
from solvers.core import Report, SettingsError, check_output, require_extra, write_whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """States, controls and reports of a rollout, time first.

    Attributes:
        q: Configurations, shape ``(T + 1, B, nq)``.
        v: Velocities, shape ``(T + 1, B, nv)``.
        interval: Lengths of the intervals that ended there [s], shape ``(T + 1, B)``.
        control: Controls, shape ``(T, B, nu)``.
        report: Reports of the steps, shape ``(T, B)``.
        timestep: Length of a step [s].
        state_gradients: Gives the derivatives of a scalar with respect to all states, all later
            steps included: q ``(T + 1, B, nq)`` and v ``(T + 1, B, nv)``. None if the trajectory
            carries no gradients.
        impulses: Constraint impulses of the last step, shape ``(1, B, w)``, or of all steps,
            ``(T, B, w)``, if the rollout kept them: what `state` goes on from, and what
            `Simulator.constraint_forces` reads.
    """

    q: Float[Tensor, "time batch nq"]
    v: Float[Tensor, "time batch nv"]
    interval: Float[Tensor, "time batch"]
    control: Float[Tensor, "step batch nu"]
    report: Report
    timestep: float
    state_gradients: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    impulses: Float[Tensor, "kept batch w"] | None = None

    @property
    def steps(self) -> int:
        """Number of steps."""
        return int(self.q.shape[0]) - 1

    @property
    def time(self) -> Tensor:
        """Times of the states [s], shape ``(T + 1,)``."""
        return self.timestep * torch.arange(self.steps + 1, dtype=torch.float64)

    def state(self, step: int) -> State:
        """The state after ``step`` steps; negative counts from the end.

        Raises:
            IndexError: If there is no such state.
        """
        if not isinstance(step, SupportsIndex) or not -self.steps - 1 <= index(step) <= self.steps:
            raise IndexError(
                f"step is {step!r}, expected a whole number up to {self.steps} (the trajectory's "
                "steps), or a negative one from the end"
            )
        held = None
        if self.impulses is not None:
            from_end = self.steps - step if step >= 0 else -1 - step
            held = self.impulses[-1 - from_end] if from_end < len(self.impulses) else None
        return State(q=self.q[step], v=self.v[step], interval=self.interval[step], impulses=held)

    def gradient_norms(self, loss: Tensor) -> Float[Tensor, "time batch"]:
        """Norm of a loss's derivative with respect to every state, to find where it explodes.

        Args:
            loss: Scalar computed from this trajectory.

        Returns:
            Norms over (q, v), all later steps included, shape ``(T + 1, B)``; zero where a state
            does not carry a gradient.

        Raises:
            SettingsError: If the trajectory carries no gradients.
        """
        if self.state_gradients is None:
            raise SettingsError(
                "the trajectory carries no gradients; roll out with a state, control or "
                "parameter that requires a gradient"
            )
        norms: Tensor = torch.cat(self.state_gradients(loss), dim=-1).norm(dim=-1)
        return norms

    def summary(self) -> dict[str, Any]:
        """Numbers for people and machines: sizes, statuses, counts."""
        parts = self.report.counts["parts"]
        gaps = self.report.counts["min_gap"]
        total = max(parts.numel(), 1)
        return {
            "steps": self.steps,
            "batch": int(self.q.shape[1]),
            "timestep": self.timestep,
            "item_steps": int(parts.numel()),
            "failures": int((~self.report.converged).sum()),
            "non_finite": int((~torch.isfinite(self.q)).any(-1).sum()),
            "half_steps": int((parts > 1).sum()),
            "half_step_share": float((parts > 1).sum()) / total,
            "rescues": int(self.report.counts["rescues"].sum()),
            "unverified": int(self.report.counts["unverified"].sum()),
            "iterations_mean": float(self.report.iterations.double().mean()),
            "iterations_max": int(self.report.iterations.max()),
            "min_gap": float(gaps.min()) if gaps.numel() else None,
            "max_speed": float(self.v.detach().abs().max()),
            "status": {
                str(code): int((self.report.status == code).sum())
                for code in self.report.status.unique().tolist()
            },
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            name: getattr(self, name).detach().numpy()
            for name in ("q", "v", "interval", "control", "time")
        }
        arrays |= {
            "status": self.report.status.numpy(),
            "iterations": self.report.iterations.numpy(),
            "residual": self.report.residual.numpy(),
        }
        if self.impulses is not None:
            arrays["impulses"] = self.impulses.numpy()
        return arrays | {name: count.numpy() for name, count in self.report.counts.items()}

    def save(self, path: str | Path, *, sensors: Mapping[str, Tensor] | None = None) -> Path:
        """Write all arrays to ``.npz`` or, by ending, to HDF5 (``.h5``, ``.hdf5``).

        The file appears whole or not at all.

        Args:
            path: Where.
            sensors: Readings of `Simulator.sensors`, saved as ``sensor/<name>``.

        Returns:
            The path.

        Raises:
            SettingsError: If the ending is not known or the folder does not exist.
            MissingExtraError: If HDF5 is asked for and h5py is not installed.
        """
        target = check_output("path", path, (".npz", ".h5", ".hdf5"))
        arrays: dict[str, Any] = self._arrays()
        for name, values in (sensors or {}).items():
            # A slash would make groups of an HDF5 file.
            arrays["sensor/" + name.replace("/", "|")] = values.detach().numpy()
        with write_whole(target) as partial:
            if partial.suffix == ".npz":
                np.savez_compressed(partial, **arrays)
            else:
                h5py = require_extra("h5py", "fields")
                with h5py.File(partial, "w") as file:
                    for name, array in arrays.items():
                        file.create_dataset(name, data=array)
        return target
