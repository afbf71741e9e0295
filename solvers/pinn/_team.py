"""Pieces of a domain at work, each on its worker, and the sum of their losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.parallel import Actor, Executor
from solvers.pinn._interfaces import Interface
from solvers.pinn._pinn import PINN

__all__ = ["Team"]


class Subdomain:
    """A piece on its worker."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._loss = PINN(**recipe).collocation

    def evaluate(self, theta: Tensor) -> tuple[float, Tensor, list[tuple[Tensor, Tensor]]]:
        loss, gradient = self._loss.loss_and_gradient(theta)
        return loss, gradient, self._loss.traces(theta)

    def held_out(self, theta: Tensor) -> tuple[float, list[tuple[Tensor, Tensor]]]:
        return self._loss.held_out(theta), self._loss.traces(theta)

    def terms(self, theta: Tensor) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
        return self._loss.terms(theta), self._loss.traces(theta)

    def move(self, theta: Tensor) -> None:
        self._loss.move(theta)

    def reweight(self, theta: Tensor) -> None:
        self._loss.reweight(theta)

    def state_dict(self) -> dict[str, Any]:
        return self._loss.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loss.load_state_dict(state)


class Team:
    """All pieces on their workers, and their sum."""

    def __init__(
        self,
        executor: Executor,
        recipes: Sequence[Mapping[str, Any]],
        sizes: Sequence[int],
        interfaces: Sequence[Interface],
    ) -> None:
        self._actors: list[Actor] = [
            executor.spawn(Subdomain, recipe, worker=number % executor.workers)
            for number, recipe in enumerate(recipes)
        ]
        self._sizes, self._interfaces = list(sizes), interfaces

    def each(self, method: str, theta: Tensor) -> list[Any]:
        """Ask all pieces for something at their own parameters."""
        parts = [part.clone() for part in theta.detach().split(self._sizes)]
        pending = [
            actor.call(method, part) for actor, part in zip(self._actors, parts, strict=True)
        ]
        return [answer.result() for answer in pending]

    def loss_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Losses of all pieces and interfaces, and the gradient."""
        answers = self.each("evaluate", theta)
        total = sum(loss for loss, _, _ in answers)
        gradients = [gradient for _, gradient, _ in answers]
        for (a, rows), (b, others), jump in self._jumps([traces for _, _, traces in answers]):
            total += 0.5 * float(jump.square().sum())
            gradients[a] = gradients[a] + rows.T @ jump
            gradients[b] = gradients[b] - others.T @ jump
        return total, torch.cat(gradients)

    def held_out(self, theta: Tensor) -> float:
        """Root of the sum of all pieces' mean squares where they were not trained, and jumps."""
        answers = self.each("held_out", theta)
        squares = sum(size**2 for size, _ in answers)
        for _, _, jump in self._jumps([traces for _, traces in answers]):
            squares += float(jump.square().sum())
        return math.sqrt(squares)

    def terms(self, theta: Tensor) -> dict[str, Tensor]:
        """Terms of the loss: of all pieces by name and number, and of the interfaces."""
        answers = self.each("terms", theta)
        jumps = self._jumps([traces for _, traces in answers])
        halves = {
            f"{name} of piece {number}": 0.5 * size
            for number, (terms, _) in enumerate(answers)
            for name, size in terms.items()
        }
        halves["interfaces"] = sum(0.5 * float(jump.square().sum()) for _, _, jump in jumps)
        return {name: torch.tensor(half, dtype=torch.float64) for name, half in halves.items()}

    def state_dict(self) -> dict[str, Any]:
        """Points and weights of all pieces."""
        pending = [actor.call("state_dict") for actor in self._actors]
        return {"pieces": [answer.result() for answer in pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        pending = [
            actor.call("load_state_dict", part)
            for actor, part in zip(self._actors, state["pieces"], strict=True)
        ]
        for answer in pending:
            answer.result()

    def _jumps(
        self, traces: Sequence[Sequence[tuple[Tensor, Tensor]]]
    ) -> Iterator[tuple[tuple[int, Tensor], tuple[int, Tensor], Tensor]]:
        """Both pieces of each interface with their Jacobians, and what their fields differ by."""
        for interface in self._interfaces:
            (a, b), (i, j) = interface.joint.pieces, interface.traces
            (values, rows), (others, other_rows) = traces[a][i], traces[b][j]
            yield (a, rows), (b, other_rows), values - others
