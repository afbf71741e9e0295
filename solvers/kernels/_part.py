"""A function beside a kernel: compiled on its own, at the same time, for the size of its code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from solvers.kernels._prelude import prelude

__all__ = ["KernelPart"]


@dataclass(frozen=True)
class KernelPart:
    """A C++ function that the body of a kernel may call by name.

    On the CPU it is compiled as a unit of its own, next to the kernel's text and with less effort,
    so put into it what is long and seldom run: the kernel is ready sooner and no slower. On CUDA it
    stands inside the kernel's text.

    Args:
        name: Identifier by which the body calls it.
        parameters: Pairs of a name and a C++ type: ``"V"``, ``"M"``, ``"V*"``, ``"const V*"``,
            ``"double"``, ``"int"`` or ``"bool"``.
        body: C++ statements; in scope are the parameters and everything that `prelude` defines. It
            returns nothing and sees no names of the kernel.

    Example:
        >>> from solvers.kernels import aligned_empty, build_kernel
        >>> half = KernelPart("halve", (("x", "V*"),), "x[0] = 0.5 * x[0];")
        >>> kernel = build_kernel("halves", "halve(x + block);", [("x", "V*")], lanes=4,
        ...                       parts=[half])
        >>> kernel(2, x := aligned_empty(2, 1, 4).fill_(3.0))
        >>> x.sum().item()
        12.0
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    body: str

    @property
    def address_name(self) -> str:
        """Parameter of the kernel's text that holds the address of the function."""
        return f"{self.name}_part_"

    @property
    def _signature(self) -> str:
        return ", ".join(f"{kind} {name}" for name, kind in self.parameters)

    @property
    def as_pointer(self) -> str:
        """Declaration by which a kernel's text calls the function at its address."""
        pointer = f"{self.name}_pointer_"
        return (
            f"typedef void (*{pointer})({self._signature});\n"
            f"const {pointer} {self.name} = ({pointer}){self.address_name};"
        )

    @property
    def in_place(self) -> str:
        """Definition inside a kernel's text."""
        head = f"[&]({self._signature}) __attribute__((noinline)) -> void"
        return f"const auto {self.name} = {head} {{\n{self.body}\n}};"

    def source(self, lanes: int) -> str:
        """Text of a unit that writes the address of the function to ``address_out``."""
        vocabulary = prelude(lanes, body=self.body)
        return (
            f"{vocabulary}typedef void (*Part_)({self._signature});\n"
            f"*(Part_*)address_out = +[]({self._signature}) -> void {{\n"
            f"{vocabulary}{self.body}\n}};\n"
        )

    def key(self, lanes: int) -> str:
        """Identifier that changes with the content."""
        return f"{self.name}_{hashlib.sha256(self.source(lanes).encode()).hexdigest()[:16]}"
