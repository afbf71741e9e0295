"""Models of the benchmarks, the same for both engines."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import physim

__all__ = ["LOCOMOTION", "MujocoBatch", "load_quietly", "locomotion_file", "random_controls"]

LOCOMOTION = ("hopper", "half_cheetah", "walker2d_v5", "ant", "humanoid")

Start = tuple[np.ndarray, np.ndarray]


def locomotion_file(name: str) -> Path:
    """Path of one of gymnasium's robots."""
    spec = importlib.util.find_spec("gymnasium")
    if spec is None or spec.origin is None:
        raise SystemExit("the robots come with gymnasium; pip install gymnasium")
    return Path(spec.origin).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"


def load_quietly(source: str | Path) -> physim.Model:
    """A model without what it warns of: `docs/models.md` lists that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return physim.load_model(source)


def random_controls(
    model: physim.Model, *, steps: int, batch: int, hold: int, scale: float, seed: int
) -> torch.Tensor:
    """Uniform controls in a share of their range, held for some steps, shape (T, B, nu)."""
    rng = np.random.default_rng(seed)
    lower, upper = (model.parameters()[f"control_{side}"].numpy() for side in ("lower", "upper"))
    draws = rng.uniform(scale * lower, scale * upper, size=(-(-steps // hold), batch, model.nu))
    return torch.as_tensor(np.repeat(draws, hold, axis=0)[:steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class MujocoBatch:
    """A batch of one model in MuJoCo, stepped by `mujoco.rollout` on one thread.

    Attributes:
        model: ``mujoco.MjModel``.
        data: ``mujoco.MjData`` that the rollout works in.
    """

    model: Any
    data: Any

    @staticmethod
    def load(
        source: str | Path,
        *,
        timestep: float,
        integrator: str | None = "implicitfast",
        cone: str = "elliptic",
        disable: Sequence[str] = (),
    ) -> MujocoBatch:
        """Read a file or text and set what is compared.

        Args:
            source: Path or MJCF text.
            timestep: Time step [s].
            integrator: ``"implicitfast"``, ``"RK4"``, ...; None keeps the file's.
            cone: ``"elliptic"`` or ``"pyramidal"``.
            disable: Names of parts to switch off, such as ``"contact"``.
        """
        import mujoco

        if isinstance(source, str):
            spec = mujoco.MjSpec.from_string(source)
        else:
            spec = mujoco.MjSpec.from_file(str(source))
        spec.option.timestep = timestep
        if integrator is not None:
            spec.option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{integrator.upper()}")
        spec.option.cone = getattr(mujoco.mjtCone, f"mjCONE_{cone.upper()}")
        for name in disable:
            spec.option.disableflags |= int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{name.upper()}"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = spec.compile()
        return MujocoBatch(model=model, data=mujoco.MjData(model))

    def start(self, q: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Full states (B, size) of configurations (B, nq) and velocities (B, nv)."""
        import mujoco

        rows = []
        mujoco.mj_resetData(self.model, self.data)
        kind = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
        row = np.empty(mujoco.mj_stateSize(self.model, kind))
        for position, velocity in zip(q, v, strict=True):
            self.data.qpos[:], self.data.qvel[:] = position, velocity
            mujoco.mj_getState(self.model, self.data, row, kind)
            rows.append(row.copy())
        return np.stack(rows)

    def run(self, start: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """All states of a rollout (B, T, size) under controls (B, T, nu)."""
        from mujoco import rollout

        if not controls.shape[-1]:
            states, _ = rollout.rollout(self.model, self.data, start, nstep=controls.shape[1])
        else:
            states, _ = rollout.rollout(self.model, self.data, start, controls)
        return np.asarray(states)

    def split(self, states: np.ndarray) -> Start:
        """Configurations and velocities of full states; time comes first in them."""
        nq, nv = self.model.nq, self.model.nv
        return states[..., 1 : 1 + nq], states[..., 1 + nq : 1 + nq + nv]

    def warnings(self) -> int:
        """How often MuJoCo found its state bad and started over since the data were made."""
        import mujoco

        kinds = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC")
        return sum(
            int(self.data.warning[int(getattr(mujoco.mjtWarning, kind))].number) for kind in kinds
        )
