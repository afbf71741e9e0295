"""Derivatives of networks: residuals of differential equations, their gradients and Jacobians.

A residual is written once on fields and their derivatives and recorded as a `ResidualProgram`; an
engine evaluates it for the parameters of a network. `CompiledEngine` is the fast one for multilayer
networks, `SweepEngine` gives the same numbers in torch on any device, `NestedEngine` takes any
``torch.nn.Module``; `residual_engine` chooses.
"""

from __future__ import annotations

from solvers.derivatives._base import ResidualEngine
from solvers.derivatives._channels import Channel, ChannelPlan
from solvers.derivatives._engine import CompiledEngine
from solvers.derivatives._layers import Branches, Layers, ModuleLayers
from solvers.derivatives._nested import NestedEngine
from solvers.derivatives._program import ResidualProgram
from solvers.derivatives._select import Backend, residual_engine
from solvers.derivatives._sweep import SweepEngine
from solvers.derivatives._trace import Field, Trace, trace_residual

__all__ = [
    "Backend",
    "Branches",
    "Channel",
    "ChannelPlan",
    "CompiledEngine",
    "Field",
    "Layers",
    "ModuleLayers",
    "NestedEngine",
    "ResidualEngine",
    "ResidualProgram",
    "SweepEngine",
    "Trace",
    "residual_engine",
    "trace_residual",
]
