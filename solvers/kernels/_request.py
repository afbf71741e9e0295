"""What a kernel is asked to be: checked, and written out as one C++ text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch

from solvers.core import SettingsError
from solvers.kernels._part import KernelPart
from solvers.kernels._prelude import DEVICES, prelude

__all__ = ["POINTER_KINDS", "KernelRequest"]

POINTER_KINDS: Final[dict[str, tuple[torch.dtype, np.dtype[Any], str]]] = {
    "V*": (torch.float64, np.dtype(np.float64), "V"),
    "double*": (torch.float64, np.dtype(np.float64), "double"),
    "int*": (torch.int32, np.dtype(np.int32), "int"),
}
"""Element type in torch, numpy and C++ of each kind of pointer argument."""

_NUMBERS: Final = {"double": "float64", "int": "int32"}
_RESERVED: Final = frozenset({"block", "first_block", "last_block"})


@dataclass(frozen=True)
class KernelRequest:
    """A body with its arguments, for one device.

    Args:
        name: Identifier for messages and for the files in the cache.
        body: C++ statements of one block.
        arguments: Pairs of name and kind.
        lanes: Doubles in a vector ``V``.
        device: ``"cpu"`` or ``"cuda"``.
        sizes: Elements of a pointer argument that each block uses, by argument name.
        parts: Functions that the body calls.

    Raises:
        SettingsError: If a name, kind, device or lane count is not allowed.
    """

    name: str
    body: str
    arguments: tuple[tuple[str, str], ...]
    lanes: int
    device: str
    sizes: Mapping[str, int]
    parts: tuple[KernelPart, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise SettingsError(
                f"kernel name {self.name!r} is not an identifier; use letters, digits, _"
            )
        if self.device not in DEVICES:
            raise SettingsError(
                f"{self.name}: device is {self.device!r}, expected one of {DEVICES}; the device of "
                "the tensors picks one of several GPUs"
            )
        _check_arguments(self.name, self.arguments, self.sizes)
        _check_parts(self.name, self.parts, self.arguments)

    @cached_property
    def source(self) -> str:
        """C++ statements that run the blocks from ``first_block`` to before ``last_block``."""
        try:
            texts = [self.body, *(part.body for part in self.parts)]
            lines = [prelude(self.lanes, device=self.device, body="".join(texts))]
        except ValueError as error:
            raise SettingsError(str(error)) from error
        for argument, kind in self.arguments:
            if kind in POINTER_KINDS:
                element = POINTER_KINDS[kind][2]
                address = _address_name(argument)
                lines.append(f"{element}* const {argument} = ({element}*){address};")
        for part in self.parts:
            lines.append(part.in_place if self.device == "cuda" else part.as_pointer)
        lines.append("for (int block = first_block; block < last_block; ++block) {")
        lines += [self.body, "}"]
        return "\n".join(lines) + "\n"

    @cached_property
    def key(self) -> str:
        """Identifier that changes with the content."""
        content = repr((self.source, self.arguments, *self.units))
        return f"{self.name}_{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @cached_property
    def units(self) -> dict[str, str]:
        """Texts of the parts that are compiled on their own, by key."""
        if self.device == "cuda":
            return {}
        return {part.key(self.lanes): part.source(self.lanes) for part in self.parts}

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Pairs of a name that the source sees and its type.

        The addresses of parts in units of their own come first, the range of blocks last.
        """
        addresses = [(part.address_name, "uint64") for part in self.parts] if self.units else []
        own = [
            (_address_name(argument), "uint64")
            if kind in POINTER_KINDS
            else (argument, _NUMBERS[kind])
            for argument, kind in self.arguments
        ]
        return [*addresses, *own, ("first_block", "int32"), ("last_block", "int32")]


def _address_name(argument: str) -> str:
    return f"{argument}_address_"


def _check_arguments(
    name: str, arguments: Sequence[tuple[str, str]], sizes: Mapping[str, int]
) -> None:
    kinds = [*POINTER_KINDS, *_NUMBERS]
    seen: set[str] = set()
    for argument, kind in arguments:
        if not argument.isidentifier() or argument in _RESERVED or argument in seen:
            raise SettingsError(
                f"{name}: argument name {argument!r} is taken twice, reserved or no identifier"
            )
        if kind not in kinds:
            raise SettingsError(
                f"{name}: argument {argument!r} is of kind {kind!r}, expected one of {kinds}"
            )
        seen.add(argument)
    pointers = {argument for argument, kind in arguments if kind in POINTER_KINDS}
    for argument in sizes:
        if argument not in pointers:
            raise SettingsError(
                f"{name}: sizes names {argument!r}, expected a pointer among {sorted(pointers)}"
            )


def _check_parts(
    name: str, parts: Sequence[KernelPart], arguments: Sequence[tuple[str, str]]
) -> None:
    taken = {argument for argument, _ in arguments} | _RESERVED
    for part in parts:
        if not part.name.isidentifier() or part.name in taken:
            raise SettingsError(
                f"{name}: name of part {part.name!r} is taken twice, reserved or no identifier"
            )
        taken.add(part.name)
