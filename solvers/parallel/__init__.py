"""Executors: the same calls in this thread, in threads, or in processes; gradients across them."""

from __future__ import annotations

from solvers.parallel._actor import Actor
from solvers.parallel._differentiable import differentiable_map
from solvers.parallel._executor import Executor
from solvers.parallel._failure import TaskError, WorkerLostError
from solvers.parallel._pending import Pending, Shared
from solvers.parallel._ray import RayExecutor
from solvers.parallel._serial import SerialExecutor
from solvers.parallel._threads import ThreadExecutor

__all__ = [
    "Actor",
    "Executor",
    "Pending",
    "RayExecutor",
    "SerialExecutor",
    "Shared",
    "TaskError",
    "ThreadExecutor",
    "WorkerLostError",
    "differentiable_map",
]
