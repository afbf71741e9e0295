"""Tensors that may be written to in place, and facts about them that are found anew then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Facts", "Written"]

T = TypeVar("T")


class Written:
    """Where the numbers of tensors lay and how often they had been written to.

    PyTorch counts what its own operations write in place, through views and detached tensors too,
    but not what goes past it: ``tensor.data``, or a NumPy array that shares the memory. Tensors of
    the inference mode have no count; a copy of their numbers is kept instead.

    Args:
        tensors: The tensors.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        tensors = list(tensors)
        self._marks = [_mark(tensor) for tensor in tensors]
        self._copies = [tensor.clone() if tensor.is_inference() else None for tensor in tensors]
        # Kept to recognise the same objects by, which is quicker than to mark them again.
        is_plain = not any(tensor.is_inference() or _is_wrapped(tensor) for tensor in tensors)
        self._plain = tensors if is_plain else None

    def is_unchanged(self, tensors: Iterable[Tensor]) -> bool:
        """Whether these are the same tensors with the same numbers.

        Args:
            tensors: The tensors, in the same order.
        """
        tensors = list(tensors)
        if self._plain is not None and len(self._plain) == len(tensors):
            for tensor, known, mark in zip(tensors, self._plain, self._marks, strict=True):
                if tensor is not known or (tensor.data_ptr(), tensor._version) != mark:
                    break
            else:
                return True
        return self._marks == [_mark(tensor) for tensor in tensors] and all(
            copy is None or torch.equal(copy, tensor)
            for copy, tensor in zip(self._copies, tensors, strict=True)
        )


class Facts:
    """What was found about tensors, by name; found anew once they have been written to.

    A copy knows nothing yet, as its tensors lie elsewhere.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Written, Any]] = {}

    def __reduce__(self) -> tuple[type[Facts], tuple[()]]:
        """Start afresh."""
        return Facts, ()

    def find(self, name: str, tensors: Iterable[Tensor], look: Callable[[], T]) -> T:
        """Give what is known, or look.

        Args:
            name: Name of the fact.
            tensors: What it depends on.
            look: Finds it.
        """
        tensors = list(tensors)
        written, fact = self._found.get(name, (None, None))
        if written is None or not written.is_unchanged(tensors):
            fact = look()
            self._found[name] = (Written(tensors), fact)
        found: T = fact  # type: ignore[assignment]
        return found

    def known(self, name: str, tensors: Iterable[Tensor]) -> Any:
        """Give what is known without looking; None if nothing is.

        Args:
            name: Name of the fact.
            tensors: What it depends on.
        """
        written, fact = self._found.get(name, (None, None))
        return fact if written is not None and written.is_unchanged(tensors) else None


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Address and count of writes; tensors within transformations have no address."""
    address = id(tensor) if _is_wrapped(tensor) else tensor.data_ptr()
    return address, 0 if tensor.is_inference() else tensor._version


def _is_wrapped(tensor: Tensor) -> bool:
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return wrapped
