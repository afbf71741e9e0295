"""Which torch.func transform is watching a tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch


def is_transformed(*tensors: Tensor) -> bool:
    """Whether a torch.func transform wraps a tensor."""
    wraps = _functorch.is_functorch_wrapped_tensor
    return any(map(wraps, tensors))


def is_wrapped(*tensors: Tensor) -> bool:
    """Whether a torch.func transform or a forward-mode tangent follows a tensor."""
    if is_transformed(*tensors):
        return True
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def is_differentiated(*tensors: Tensor) -> bool:
    """Whether autograd, a torch.func transform or a forward-mode tangent follows a tensor."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return is_wrapped(*tensors)


def is_recorded(*tensors: Tensor) -> bool:
    """Whether autograd follows a tensor, and nothing else follows any."""
    if not torch.is_grad_enabled() or is_transformed(*tensors):
        return False
    duals = [torch.autograd.forward_ad.unpack_dual(x).tangent for x in tensors]
    return any(x.requires_grad for x in tensors) and all(x is None for x in duals)
