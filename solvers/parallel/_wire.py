"""Tensors between processes: as arrays, which travel without being pickled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["send_tensors_as_arrays"]


def send_tensors_as_arrays() -> None:
    """Make Ray, in this process, send CPU tensors as NumPy arrays.

    What arrives is a tensor of its own memory that may be written to, without its history.
    """
    from ray.util import register_serializer

    register_serializer(Tensor, serializer=_to_wire, deserializer=_from_wire)


def _to_wire(tensor: Tensor) -> tuple[str, Any, bool]:
    plain = tensor.detach()
    if plain.layout is torch.strided and plain.device.type == "cpu":
        try:
            return "array", plain.resolve_conj().resolve_neg().numpy(), tensor.requires_grad
        except TypeError:
            pass  # a type that NumPy does not have
    file = io.BytesIO()
    torch.save(plain, file)
    return "file", file.getvalue(), tensor.requires_grad


def _from_wire(sent: tuple[str, Any, bool]) -> Tensor:
    kind, content, wants_gradient = sent
    if kind == "array":
        # Arrays out of shared memory are read-only.
        tensor = torch.from_numpy(np.array(content))
    else:
        tensor = torch.load(io.BytesIO(content), weights_only=True)
    return tensor.requires_grad_(wants_gradient)
