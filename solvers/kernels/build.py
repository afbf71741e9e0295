"""Kernels: a C++ body, run once per block of lanes, compiled, cached and callable with arrays.

The body is compiled by the compiler that comes with Warp; Warp caches the machine code on disk by
content, so a program started again loads what it built before. A call hands addresses over, runs
all blocks in one go on the calling thread and releases the interpreter lock meanwhile.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from solvers.core import PhysimError, SettingsError
from solvers.kernels._prelude import prelude
from solvers.kernels._warp import (
    NativeFunction,
    cache_directory,
    captured_standard_error,
    compile_native,
)
from solvers.kernels.launch import POINTER_KINDS, Kernel

__all__ = ["KernelBuildError", "build_kernel"]

_NUMBERS: Final = {"double": "float64", "int": "int32"}
_RESERVED: Final = frozenset({"block", "first_block", "last_block"})

_lock = threading.RLock()
_built: dict[tuple[object, ...], Kernel] = {}


class KernelBuildError(PhysimError, RuntimeError):
    """The compiler refused the text of a kernel.

    Args:
        message: Kernel name, first lines of the compiler's words and where the text lies.
        source: Path of the text that was compiled.
    """

    def __init__(self, message: str = "", *, source: str = "") -> None:
        """Keep the path beside the message."""
        super().__init__(message)
        self.source = source


def build_kernel(
    name: str,
    body: str,
    arguments: Sequence[tuple[str, str]],
    *,
    lanes: int,
    device: str = "cpu",
    sizes: Mapping[str, int] | None = None,
) -> Kernel:
    """Compile a body that runs once per block of lanes, or load it from the cache.

    Args:
        name: Identifier for messages and for the files in the cache.
        body: C++ statements of one block. In scope are the arguments by name, the int ``block``,
            and everything that `prelude` defines. ``continue`` outside an inner loop ends the block
            early; ``return`` would end all blocks. No preprocessor line may share its line.
        arguments: Pairs of name and kind: ``"V*"`` (array of lane vectors), ``"double*"``,
            ``"int*"`` (32 bits), ``"double"``, ``"int"``.
        lanes: Doubles in a vector ``V``: 1, 2, 4 or 8; see `lane_count`.
        device: Only ``"cpu"`` so far.
        sizes: Elements of a pointer argument that each block uses, by argument name; calls then
            check that the array is long enough for all blocks.

    Returns:
        Callable kernel. The same content gives the same object within a process.

    Raises:
        SettingsError: If a name, kind, device or lane count is not allowed.
        KernelBuildError: If the compiler refuses the body.

    Example:
        >>> from solvers.kernels import aligned_empty
        >>> kernel = build_kernel("twice", "y[block]=2.0*x[block];", [("x", "V*"), ("y", "V*")],
        ...                       lanes=4)
        >>> x = aligned_empty(2, 1, 4)
        >>> kernel(2, x.fill_(1.5), y := aligned_empty(2, 1, 4))
        >>> y.sum().item()
        24.0
    """
    arguments = tuple((str(argument), str(kind)) for argument, kind in arguments)
    _check_request(name, arguments, device, sizes or {})
    source = _snippet(body, arguments, lanes)
    key = f"{name}_{hashlib.sha256(repr((source, arguments)).encode()).hexdigest()[:16]}"
    request = (key, *sorted((sizes or {}).items()))
    with _lock:
        if request not in _built:
            parameters = [
                (
                    _address_name(argument) if kind in POINTER_KINDS else argument,
                    "uint64" if kind in POINTER_KINDS else _NUMBERS[kind],
                )
                for argument, kind in arguments
            ]
            parameters += [("first_block", "int32"), ("last_block", "int32")]
            call = _compile(name, key, source, parameters)
            _built[request] = Kernel(
                name, source, arguments, lanes=lanes, call=call, sizes=sizes or {}
            )
        return _built[request]


def _address_name(argument: str) -> str:
    return f"{argument}_address_"


def _check_request(
    name: str, arguments: Sequence[tuple[str, str]], device: str, sizes: Mapping[str, int]
) -> None:
    if not name.isidentifier():
        raise SettingsError(f"kernel name {name!r} is not an identifier; use letters, digits, _")
    if device != "cpu":
        raise SettingsError(f"{name}: device is {device!r}, expected 'cpu', the only one so far")
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


def _snippet(body: str, arguments: Sequence[tuple[str, str]], lanes: int) -> str:
    try:
        lines = [prelude(lanes)]
    except ValueError as error:
        raise SettingsError(str(error)) from error
    for argument, kind in arguments:
        if kind in POINTER_KINDS:
            element = POINTER_KINDS[kind][2]
            lines.append(f"{element}* const {argument} = ({element}*){_address_name(argument)};")
    lines.append("for (int block = first_block; block < last_block; ++block) {")
    lines += [body, "}"]
    return "\n".join(lines) + "\n"


def _compile(
    name: str, key: str, source: str, parameters: Sequence[tuple[str, str]]
) -> NativeFunction:
    # complaints then count lines from the start of the text that is kept on failure
    text = f'\n#line 1 "{key}.cpp"\n{source}'
    with captured_standard_error() as words:
        call, failure = _attempt(key, text, parameters)
    if call is not None:
        others = [line for line in words if not line.startswith("Warp ")]
        if others:
            print("\n".join(others), file=sys.stderr)
        return call
    path = cache_directory() / "failed" / f"{key}.cpp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    raise KernelBuildError(
        f"kernel {name!r} does not compile; its text is in {path}. First complaints:\n"
        + "\n".join(_complaints(words) or [str(failure)]),
        source=str(path),
    ) from failure


def _attempt(
    key: str, text: str, parameters: Sequence[tuple[str, str]]
) -> tuple[NativeFunction | None, Exception | None]:
    try:
        return compile_native(key, text, parameters), None
    except ImportError:
        raise
    except Exception as error:
        # Warp raises the bare base class for a refused text
        return None, error


def _complaints(words: list[str]) -> list[str]:
    errors = [i for i, line in enumerate(words) if "error:" in line]
    # the line after a complaint quotes the text at fault
    return [line for i in errors[:4] for line in words[i : i + 2]]
