"""Whether a torch.func transform forbids that values steer the program."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["is_mapped"]

_functorch = torch._C._functorch


def is_mapped(*tensors: Tensor) -> bool:
    """Whether a tensor is inside `torch.vmap`, where no value may steer the program."""
    for tensor in tensors:
        inner = tensor
        while _functorch.is_functorch_wrapped_tensor(inner):
            if _functorch.is_batchedtensor(inner):
                return True
            inner = _functorch.get_unwrapped(inner)
    return False
