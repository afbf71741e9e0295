"""Policies that run inside the native call of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from physim.dynamics._inputs import rotation_spans
from physim.dynamics._layers import ACTIVATIONS, Layers
from physim.dynamics._state import State
from physim.model import Model
from physim.model.tree import build_tree
from solvers.core import SettingsError, ShapeError, check_choice
from solvers.kernels import algebra as la

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": torch.clone,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
Bounds = tuple[Tensor | float, Tensor | float]


@runtime_checkable
class LayeredPolicy(Protocol):
    """A policy whose controls are layers of affine maps and activations of the state."""

    def layers(self, model: Model, steps: int, batch: int) -> Layers:
        """What it computes in a rollout of a model, differentiable.

        Args:
            model: Whose states and controls they are.
            steps: Length of the rollout.
            batch: Items.
        """
        ...

    def __call__(self, state: State, step: int) -> Tensor:
        """Controls (B, nu) at a state."""
        ...


class LinearFeedback:
    r"""Controls that follow a reference: :math:`u = u_0 + K\,(x \ominus x_0)`.

    The difference of states is (q, v) in tangent coordinates, as in `Simulator.linearize`: a
    difference of joint coordinates, and twice the vector part of the relative quaternion for free
    and ball joints.

    Args:
        model: Whose state it feeds back.
        gain: K, shape ``(nu, 2 nv)``; ``(T, nu, 2 nv)`` differs from step to step, ``(T, B, nu,
            2 nv)`` from item to item as well, where T or B may be 1.
        q: Reference configuration, shape ``(nq,)``, ``(T, nq)`` or ``(T, B, nq)``; the model's
            initial one by default.
        v: Reference velocity, likewise; zero by default.
        control: u_0, likewise; zero by default.
        bounds: Least and greatest controls, numbers or shape ``(nu,)``; the controls are clipped to
            them.

    Raises:
        ShapeError: If a shape is wrong.

    Gradients: with respect to all of these but the bounds, and to the states.

    Example:
        >>> import physim, torch
        >>> from physim.dynamics import LinearFeedback
        >>> model = physim.load_model('''<mujoco><option gravity="0 0 0"/><worldbody>
        ...   <body><joint name="x" type="slide"/><geom size="0.1" mass="1"/></body></worldbody>
        ...   <actuator><motor joint="x"/></actuator></mujoco>''')
        >>> sim = physim.Simulator(model, timestep=0.01)
        >>> push_back = LinearFeedback(model, torch.tensor([[-4.0, -4.0]]))
        >>> motion = sim.rollout(sim.initial_state(q=[1.0]), push_back, steps=500)
        >>> bool(motion.q[-1].abs() < 0.01)
        True
    """

    def __init__(
        self,
        model: Model,
        gain: Tensor,
        *,
        q: Tensor | None = None,
        v: Tensor | None = None,
        control: Tensor | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        nothing = torch.zeros(1, dtype=torch.float64)
        nq, nv, nu = model.nq, model.nv, model.nu
        self._tree = build_tree(model)
        self._gain = _outer("gain", gain, (nu, 2 * nv))
        self._q = _outer("q", model.initial_q if q is None else q, (nq,))
        self._v = _outer("v", nothing.expand(nv) if v is None else v, (nv,))
        self._control = _outer("control", nothing.expand(nu) if control is None else control, (nu,))
        self._bounds = _bounds(bounds, nu)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Weights (T, B, nu, nq + nv) and bias (T, B, nu) of raw coordinates."""
        tree, nv = self._tree, self._tree.nv
        by_q, by_v = self._gain[..., :nv], self._gain[..., nv:]
        columns: list[Tensor] = [torch.zeros_like(by_q[..., 0])] * tree.nq
        turns = {start: dof for _, start, dof in rotation_spans(tree)}
        for joint in tree.joints:
            straight = {"free": 3, "ball": 0}.get(joint.kind, 1)
            for k in range(straight):
                columns[joint.q + k] = by_q[..., joint.v + k]
        for start, dof in turns.items():
            # q0^-1 q is linear in q: its columns are products with the unit quaternions.
            reference = list(self._q[..., start : start + 4].unbind(-1))
            by_turn = by_q[..., dof : dof + 3]
            for k in range(4):
                unit = [1.0 if i == k else 0.0 for i in range(4)]
                relative = la.quaternion_product(la.conjugate(reference), unit)
                turn = torch.stack(relative[1:], dim=-1)[..., None, :]
                columns[start + k] = 2.0 * (by_turn * turn).sum(-1)
        shape = torch.broadcast_shapes(*(column.shape for column in columns))
        straight_q = torch.stack([column.expand(shape) for column in columns], dim=-1)
        outer = torch.broadcast_shapes(shape, by_v.shape[:-1])
        weights = torch.cat([straight_q.expand(*outer, tree.nq), by_v.expand(*outer, nv)], dim=-1)
        outer = torch.broadcast_shapes(self._q.shape[:2], self._v.shape[:2])
        middle = torch.cat([self._q.expand(*outer, -1), self._v.expand(*outer, -1)], dim=-1)
        bias = self._control - (weights @ middle[..., None])[..., 0]
        return weights, bias

    def __call__(self, state: State, step: int) -> Tensor:
        """Controls (B, nu) at a state."""
        weights, bias = self._affine()
        now, offset = (y[step if len(y) > 1 else 0] for y in (weights, bias))
        x = torch.cat([state.q, state.v], dim=-1)
        return ((now @ x[..., None])[..., 0] + offset).clamp(*self._bounds)

    def layers(self, model: Model, steps: int, batch: int) -> Layers:
        """One layer without activation (see `LayeredPolicy`)."""
        weights, bias = self._affine()
        layers = Layers(
            observe=range(model.nq + model.nv),
            weights=[weights],
            biases=[bias],
            activations=["identity"],
            lower=self._bounds[0],
            upper=self._bounds[1],
        )
        return layers.checked(model, steps, batch)


class MLPPolicy:
    """A multilayer perceptron that gives controls from the state.

    Args:
        weights: Of every layer, shape ``(outputs, inputs)``; ``(B, outputs, inputs)`` if every item
            has its own.
        biases: Of every layer, shape ``(outputs,)`` or ``(B, outputs)``.
        activations: Of every layer: ``"tanh"``, ``"relu"`` or ``"identity"``.
        observe: Places in (q, v) of what the first layer sees; all by default. Leave out what the
            motion does not depend on, such as a walker's way along the track.
        bounds: Least and greatest controls, numbers or shape ``(nu,)``; the controls are clipped to
            them.

    Raises:
        ShapeError: If the shapes of the layers do not fit together.
        SettingsError: If an activation is not known.

    Gradients: with respect to weights, biases and states.
    Cost: a rollout runs layers of up to about a thousand values in all inside its native calls,
    larger ones step by step.

    Example:
        >>> import physim, torch
        >>> from physim.dynamics import MLPPolicy
        >>> model = physim.load_model('''<mujoco><worldbody>
        ...   <body><joint name="hip" axis="0 1 0"/><geom size="0.1" pos="0 0 1" mass="1"/></body>
        ...   </worldbody><actuator><motor joint="hip"/></actuator></mujoco>''')
        >>> sim = physim.Simulator(model, timestep=0.01)
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
        ... ).double()
        >>> policy = MLPPolicy.from_network(network, bounds=(-1.0, 1.0))
        >>> motion = sim.rollout(sim.initial_state(batch=8), policy, steps=20)
        >>> motion.v[-1].square().sum().backward()
        >>> network[0].weight.grad.shape
        torch.Size([16, 2])
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activations: Sequence[str],
        *,
        observe: Sequence[int] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        if not len(weights) == len(biases) == len(activations) > 0:
            raise ShapeError(
                f"{len(weights)} weights, {len(biases)} biases and {len(activations)} "
                "activations, expected one of each per layer"
            )
        for name in activations:
            check_choice("activations", name, tuple(ACTIVATIONS))
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            inputs = weights[k - 1].shape[-2] if k else weight.shape[-1]
            if weight.dim() not in (2, 3) or weight.shape[-1] != inputs:
                raise ShapeError(
                    f"weights[{k}] has shape {tuple(weight.shape)}, expected (outputs, {inputs}) "
                    f"or (batch, outputs, {inputs})"
                )
            if bias.dim() not in (1, 2) or bias.shape[-1] != weight.shape[-2]:
                raise ShapeError(
                    f"biases[{k}] has shape {tuple(bias.shape)}, expected ({weight.shape[-2]},) "
                    f"or (batch, {weight.shape[-2]})"
                )
        self.weights, self.biases = list(weights), list(biases)
        self.activations = list(activations)
        self.observe = None if observe is None else [int(i) for i in observe]
        self._bounds = _bounds(bounds, weights[-1].shape[-2])

    @classmethod
    def from_network(
        cls,
        network: nn.Sequential,
        *,
        observe: Sequence[int] | None = None,
        bounds: Bounds | None = None,
    ) -> Self:
        """A policy that shares the parameters of a network.

        Args:
            network: `torch.nn.Linear`, each followed by `Tanh`, `ReLU`, `Identity` or nothing.
            observe: As above.
            bounds: As above.

        Raises:
            SettingsError: If the network holds something else.
        """
        weights, biases, activations = [], [], []
        names = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.Identity: "identity"}
        for module in network:
            if isinstance(module, nn.Linear):
                weights.append(module.weight)
                nothing = torch.zeros_like(module.weight[:, 0]).detach()
                biases.append(nothing if module.bias is None else module.bias)
                activations.append("identity")
            elif type(module) in names and activations and activations[-1] == "identity":
                activations[-1] = names[type(module)]
            else:
                raise SettingsError(
                    f"network holds {module} where Linear, or Tanh, ReLU or Identity after one, "
                    "is expected; roll out with a plain function of (state, step) instead"
                )
        return cls(weights, biases, activations, observe=observe, bounds=bounds)

    def __call__(self, state: State, step: int) -> Tensor:
        """Controls (B, nu) at a state."""
        del step
        x = torch.cat([state.q, state.v], dim=-1)
        x = x if self.observe is None else x[:, self.observe]
        for weight, bias, name in zip(self.weights, self.biases, self.activations, strict=True):
            x = _FUNCTIONS[name]((weight.double() @ x[..., None])[..., 0] + bias.double())
        return x.clamp(*self._bounds)

    def layers(self, model: Model, steps: int, batch: int) -> Layers:
        """Its layers (see `LayeredPolicy`)."""
        layers = Layers(
            observe=range(model.nq + model.nv) if self.observe is None else self.observe,
            weights=[y.reshape(1, -1, *y.shape[-2:]) for y in self.weights],
            biases=[y.reshape(1, -1, y.shape[-1]) for y in self.biases],
            activations=self.activations,
            lower=self._bounds[0],
            upper=self._bounds[1],
        )
        return layers.checked(model, steps, batch)


def _bounds(bounds: Bounds | None, nu: int) -> tuple[Tensor, Tensor]:
    """Least and greatest controls (nu,) each."""
    sides = []
    for value in bounds or (-torch.inf, torch.inf):
        side = torch.as_tensor(value, dtype=torch.float64).detach()
        if side.dim() > 1 or (side.dim() == 1 and len(side) != nu):
            raise ShapeError(f"bounds: {tuple(side.shape)} where a number or ({nu},) is expected")
        sides.append(side.expand(nu))
    return sides[0], sides[1]


def _outer(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of shape (T, B, *shape) from one with none, the first or both of them."""
    extra = value.dim() - len(shape)
    if extra not in (0, 1, 2) or tuple(value.shape[extra:]) != shape:
        raise ShapeError(
            f"{name} has shape {tuple(value.shape)}, expected {shape} with nothing, (T,) or (T, B) "
            "before"
        )
    value = value.double()
    return value.reshape(*value.shape[:extra], *[1] * (2 - extra), *shape)
