"""Files that are whole or absent: tensors with a JSON description in one safetensors file.

A safetensors file cannot run code when it is read, unlike a pickle, and other programs read it too.
The description travels in its header. A file appears under its name only when every byte is on the
disk, so a crash leaves the previous file untouched.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.core._errors import CheckpointError, SettingsError
from solvers.core._files import write_whole
from solvers.core._kinds import check_kind

__all__ = [
    "Checkpoint",
    "capture_random_state",
    "load_checkpoint",
    "restore_random_state",
    "save_checkpoint",
]

_FORMAT = 1
_HEADER = "physim"
_RANDOM = "random_state."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
        kind: What the file describes, for example ``"pinn"``.
        tensors: Tensors by name.
        metadata: Everything that is not a tensor, as JSON values.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write tensors and their description to a file, whole or not at all.

    Args:
        path: The file; its folder must exist.
        tensors: Tensors by name, any shape and device; stored without gradient.
        kind: What the file describes; :func:`load_checkpoint` compares it.
        metadata: JSON values.

    Returns:
        The path of the file.

    Raises:
        SettingsError: If ``metadata`` holds something JSON cannot express.
        OSError: If the folder is missing or the disk is full; an earlier file is then unchanged.
    """
    from safetensors.torch import save_file

    check_kind("path", path, (str, os.PathLike), "a path to a file")
    target = Path(path)
    plain = _on_cpu(tensors)
    header = {
        "format": _FORMAT,
        "kind": kind,
        "checksum": _checksum(plain),
        "metadata": dict(metadata or {}),
    }
    try:
        text = json.dumps(header)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"metadata: {error}; expected numbers, texts, lists and dicts with text keys. "
            "Put arrays into `tensors`"
        ) from error
    with write_whole(target) as partial:
        # safetensors has its own error for a folder that is not writable; this one is an OSError.
        partial.touch(exist_ok=False)
        save_file(plain, partial, metadata={_HEADER: text})
    return target


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    kind: str,
    device: torch.device | str = "cpu",
) -> Checkpoint:
    """Read a file that :func:`save_checkpoint` wrote.

    Args:
        path: The file.
        kind: The kind that is expected.
        device: Where the tensors shall live.

    Returns:
        Tensors and metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, of another kind or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    check_kind("path", path, (str, os.PathLike), "a path to a file")
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no checkpoint file at {source}")
    try:
        with safe_open(source, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(
            f"{source} is damaged or no checkpoint ({error}); use an earlier copy"
        ) from error
    header = _read_header(source, text)
    if header["kind"] != kind:
        raise CheckpointError(
            f"{source} holds a checkpoint of kind {header['kind']!r}, expected {kind!r}; "
            "load it with the function that matches its kind"
        )
    if header["checksum"] != _checksum(tensors):
        raise CheckpointError(
            f"{source} is damaged: its numbers do not match its checksum; use an earlier copy"
        )
    return Checkpoint(
        kind=kind,
        tensors={name: tensor.to(device) for name, tensor in tensors.items()},
        metadata=header["metadata"],
    )


def capture_random_state(generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Take the state of the random numbers, to be saved among the tensors of a checkpoint.

    Args:
        generator: The generator in use; torch's global ones (CPU and every CUDA device) by default.

    Returns:
        Tensors with names that no other tensor of a checkpoint should have.
    """
    if generator is not None:
        return {f"{_RANDOM}generator": generator.get_state()}
    state = {f"{_RANDOM}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states = torch.cuda.get_rng_state_all()
        state |= {f"{_RANDOM}cuda{i}": tensor for i, tensor in enumerate(states)}
    return state


def restore_random_state(
    tensors: Mapping[str, Tensor], generator: torch.Generator | None = None
) -> None:
    """Put back what :func:`capture_random_state` took.

    Args:
        tensors: The captured tensors; other entries are ignored.
        generator: The generator to set, if one was captured. It must be of the same device type.

    Raises:
        CheckpointError: If the state of this generator is not among the tensors.
    """
    key = f"{_RANDOM}{'cpu' if generator is None else 'generator'}"
    if key not in tensors:
        raise CheckpointError(
            f"no random state {key!r} among the tensors; capture and restore it with the same "
            "`generator` argument"
        )
    if generator is not None:
        generator.set_state(tensors[key].cpu())
        return
    torch.set_rng_state(tensors[key].cpu())
    for device in range(torch.cuda.device_count()):
        state = tensors.get(f"{_RANDOM}cuda{device}")
        if state is not None:
            torch.cuda.set_rng_state(state.cpu(), device)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        storage = value.untyped_storage().data_ptr()
        # Tied weights share memory, which the format refuses; each name gets its own copy.
        plain[name] = value.clone() if storage in storages else value
        storages.add(storage)
    return plain


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _read_header(source: Path, text: str | None) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text or "")
        written = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source} is a safetensors file without the description that physim writes; "
            "expected a file made by save_checkpoint"
        ) from error
    if written > _FORMAT:
        raise CheckpointError(
            f"{source} has format {written}, this version reads up to {_FORMAT}; update physim"
        )
    if not {"kind", "checksum", "metadata"} <= header.keys():
        raise CheckpointError(f"{source} is damaged: its description is incomplete")
    return header
