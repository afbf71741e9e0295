"""Nested state as flat tensors and JSON, so that a checkpoint can hold any optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["pack", "unpack"]


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Take tensors out of nested containers.

    Args:
        value: Dicts with any plain keys, lists, tuples, tensors, numbers, texts, None.
        tensors: Gets the tensors under new names.

    Returns:
        JSON values that refer to them.

    Raises:
        SettingsError: If something else is in there.

    Example:
        >>> found = {}
        >>> skeleton = pack({"state": {0: torch.ones(2)}, "lr": 0.1}, found)
        >>> unpack(skeleton, found)["state"][0].tolist()
        [1.0, 1.0]
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        name = f"tensor.{len(tensors)}"
        # A copy: what is saved must not follow the run, nor share memory with other entries.
        tensors[name] = value.detach().clone()
        return {"kind": "tensor", "name": name}
    if isinstance(value, Mapping):
        pairs = [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]
        return {"kind": "dict", "pairs": pairs}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {"kind": kind, "items": [pack(item, tensors) for item in value]}
    if isinstance(value, torch.Size):
        return {"kind": "tuple", "items": list(value)}
    raise SettingsError(
        f"state: holds {type(value).__name__}, expected tensors, numbers, texts and containers of "
        "these; keep other objects out of state_dict"
    )


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put tensors back into nested containers.

    Args:
        value: From :func:`pack`.
        tensors: The tensors by name.

    Returns:
        What was packed.
    """
    if not isinstance(value, dict):
        return value
    kind = value["kind"]
    if kind == "tensor":
        return tensors[value["name"]]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value["pairs"]}
    items = [unpack(item, tensors) for item in value["items"]]
    return items if kind == "list" else tuple(items)
