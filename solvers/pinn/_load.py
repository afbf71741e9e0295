"""Results back from their files."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from solvers.core import Report, SettingsError
from solvers.pde import Problem
from solvers.pinn._arguments import check_problem
from solvers.pinn._lagrangian import LagrangianPINN, LagrangianResult
from solvers.pinn._lagrangian_branches import TwoBranchMLP
from solvers.pinn._marching import TimeMarching
from solvers.pinn._networks import MLP, ModifiedMLP
from solvers.pinn._pinn import PINN
from solvers.pinn._result import PINNResult, read_result
from solvers.pinn._subdomains import XPINN
from solvers.pinn.variational._result import RitzResult
from solvers.pinn.variational._ritz import DeepRitz

__all__ = ["load"]


def load(
    path: str | os.PathLike[str], problem: Problem, network: nn.Module | None = None
) -> PINNResult | LagrangianResult | RitzResult:
    """Read a result that its ``save`` wrote.

    Args:
        path: The file.
        problem: The problem that it was trained on.
        network: The module, if it was one of your own.

    Returns:
        The result.

    Raises:
        CheckpointError: If it is damaged or belongs to another problem.
        SettingsError: If it belongs to another network, or to one of your own that is missing.
    """
    check_problem(problem)
    theta, metadata = read_result(path, problem)
    settings = {**metadata["settings"], "points": 16}
    settings.pop("most_points", None)
    kinds: dict[str, Any] = {"MLP": MLP, "ModifiedMLP": ModifiedMLP, "TwoBranchMLP": TwoBranchMLP}
    shape, kind = settings.pop("shape", {}), settings.pop("network")
    if kind not in kinds and network is None:
        raise SettingsError(
            f"{path}: was trained with a module of your own, expected it as network=..."
        )
    made: Any = kinds[kind](**shape) if kind in kinds else network
    if "gram" in settings:
        points = metadata["settings"]["points"]
        return DeepRitz(problem, made, **{**settings, "points": points}).load(path)
    report = Report(
        status=torch.tensor(metadata["status"]),
        iterations=torch.tensor(metadata["iterations"]),
        residual=torch.tensor(metadata["residual"], dtype=torch.float64),
        counts={name: torch.tensor(count) for name, count in metadata["counts"].items()},
    )
    story = {"history": metadata["history"], "settings": metadata["settings"], "report": report}
    if "formulation" in settings:
        moving = LagrangianPINN(problem, made, **settings)
        _check_length(path, theta, moving.pinn.parameter_count)
        return LagrangianResult(
            problem=problem,
            transport=moving.transport,
            network=moving.pinn.field(theta),
            **story,
        )
    for mark, arm in (("windows", TimeMarching), ("pieces", XPINN)):
        if mark in settings:
            pieces: TimeMarching | XPINN = arm(problem, made, **settings)
            return pieces.restore(theta, **story)
    pinn = PINN(problem, made, **settings)
    _check_length(path, theta, pinn.parameter_count)
    return PINNResult(
        problem=problem, network=pinn.field(theta), coefficients=metadata["found"], **story
    )


def _check_length(path: str | os.PathLike[str], theta: Tensor, count: int) -> None:
    if len(theta) != count:
        raise SettingsError(
            f"{path}: holds {len(theta)} parameters, expected {count}; give the network that was "
            "trained"
        )
