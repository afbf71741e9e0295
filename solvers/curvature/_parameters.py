"""Named tensors as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.core import SettingsError, ShapeError

__all__ = ["ParameterSpace"]


class ParameterSpace:
    """The layout of named tensors in one vector.

    Args:
        parameters: Tensors by name, in the order in which they stand in the vector. They must
            share one floating-point type and one device.

    Attributes:
        shapes: Shape by name.
        slices: Place in the vector by name.
        size: Length of the vector.

    Raises:
        SettingsError: If there is no tensor or they differ in type or device.

    Example:
        >>> space = ParameterSpace({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        >>> vector = space.flatten({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        >>> space.size, space.unflatten(vector)["weight"].shape
        (8, torch.Size([2, 3]))
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        if not parameters:
            raise SettingsError(
                "parameters: got none, expected at least one tensor that takes gradients; "
                "call requires_grad_() on what is to be trained"
            )
        kinds = {(p.dtype, p.device) for p in parameters.values()}
        if len(kinds) > 1 or not next(iter(parameters.values())).is_floating_point():
            raise SettingsError(
                f"parameters: got {sorted(map(str, kinds))}, expected one floating-point type on "
                "one device; convert the module with .to(dtype) or .to(device)"
            )
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.slices: dict[str, slice] = {}
        place = 0
        for name, p in parameters.items():
            self.slices[name] = slice(place, place + p.numel())
            place += p.numel()
        self.size = place

    @classmethod
    def of(cls, module: nn.Module) -> tuple[ParameterSpace, Float[Tensor, " n"]]:
        """Lay out the parameters of a module that take gradients.

        Args:
            module: Any module; its frozen parameters are left out.

        Returns:
            The layout and the present values, a copy without gradient.

        Raises:
            SettingsError: If no parameter takes gradients.
        """
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        space = cls(trained)
        return space, space.flatten({name: p.detach() for name, p in trained.items()})

    def flatten(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
        """Join tensors into one vector.

        Args:
            parameters: One tensor for every name of the layout.

        Returns:
            A new vector of length ``size``; differentiable.

        Raises:
            ShapeError: If a name is missing or a shape differs.
        """
        for name, shape in self.shapes.items():
            if name not in parameters or parameters[name].shape != shape:
                got = tuple(parameters[name].shape) if name in parameters else "nothing"
                raise ShapeError(f"parameters[{name!r}]: got {got}, expected shape {tuple(shape)}")
        return torch.cat([parameters[name].reshape(-1) for name in self.shapes])

    def unflatten(self, vector: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """Cut a vector into named tensors, which are views of it.

        Args:
            vector: Length ``size``.

        Returns:
            Tensors by name.

        Raises:
            ShapeError: If the length differs.
        """
        if vector.shape != (self.size,):
            raise ShapeError(f"vector: got shape {tuple(vector.shape)}, expected ({self.size},)")
        return {name: vector[self.slices[name]].view(shape) for name, shape in self.shapes.items()}

    @property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """Names by layer, which is the name up to its last dot."""
        grouped: dict[str, list[str]] = {}
        for name in self.shapes:
            grouped.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return {layer: tuple(names) for layer, names in grouped.items()}

    def mask(self, layers: Iterable[str]) -> Tensor:
        """Mark the entries of some layers.

        Args:
            layers: Keys of :attr:`layers`.

        Returns:
            Boolean vector of length ``size``.

        Raises:
            SettingsError: If a layer is not known.
        """
        marked = torch.zeros(self.size, dtype=torch.bool)
        known = self.layers
        for layer in layers:
            if layer not in known:
                raise SettingsError(f"layers: got {layer!r}, expected some of {list(known)}")
            for name in known[layer]:
                marked[self.slices[name]] = True
        return marked
