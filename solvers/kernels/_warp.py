"""The door to Warp: quiet import, and a native text turned into a loaded function.

Only this module imports warp, and only when a kernel is built.
"""

from __future__ import annotations

import contextlib
import ctypes
import linecache
import os
import struct
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = [
    "LANE_BLOCKS",
    "NativeFunction",
    "cache_directory",
    "captured_standard_error",
    "compile_native",
    "define_kernel",
    "import_warp",
    "quiet",
]

NativeFunction = Callable[[Sequence[Any]], None]
"""Runs the compiled text once with the values of its parameters."""

LANE_BLOCKS = """\
import warp as wp

@wp.func_native(SNIPPET)
def {key}_body({parameters}): ...

@wp.kernel(module="unique", enable_backward=False, module_options=OPTIONS)
def {key}({parameters}):
    {key}_body({names})
"""
"""Kernel that runs all blocks of a range on the thread that calls it."""

# lanes are explicit, so that a search for more of them in straight-line code finds nothing; exact
# arithmetic must not depend on what else in the process has asked Warp for fast mathematics
_OPTIONS = {
    "enable_backward": False,
    "fast_math": False,
    "cpu_compiler_flags": "-march=native -fno-slp-vectorize",
}
_LITTLE_EFFORT = 1
"""Optimisation level of a kernel's parts; its own text has the one that Warp takes."""


def import_warp() -> Any:
    """Import Warp, told to speak of trouble only."""
    first = "warp" not in sys.modules
    import warp

    if first:
        # whoever imported warp before us has already said how talkative it should be
        warp.config.log_level = warp.LOG_WARNING
        directory = os.environ.get("PHYSIM_CACHE")
        if directory and warp.config.kernel_cache_dir is None:
            warp.config.kernel_cache_dir = str(Path(directory).expanduser() / "warp")
    return warp


@contextlib.contextmanager
def quiet(warp: Any) -> Iterator[None]:
    """Keep Warp from reporting what it compiles and loads."""
    level = warp.config.log_level
    warp.config.log_level = max(level, warp.LOG_WARNING)
    try:
        yield
    finally:
        warp.config.log_level = level


def cache_directory() -> Path:
    """Find the folder for compiled kernels: ``$PHYSIM_CACHE`` or the user's cache folder."""
    configured = os.environ.get("PHYSIM_CACHE")
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "physim"


@contextlib.contextmanager
def captured_standard_error() -> Iterator[list[str]]:
    """Collect what native code writes to the standard error of the process.

    Yields:
        List that holds the lines after the block has ended.

    The compiler knows no other way to say what is wrong. What other threads write meanwhile is
    collected too.
    """
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines.extend(file.read().decode("utf-8", errors="replace").splitlines())


def compile_native(
    key: str,
    snippet: str,
    parameters: Sequence[tuple[str, str]],
    units: Mapping[str, str] = MappingProxyType({}),
) -> NativeFunction:
    """Compile native texts through Warp, or load them from Warp's cache on disk.

    Args:
        key: Identifier that names the module; it should change with the content.
        snippet: C++ statements that see the parameters as local variables.
        parameters: Pairs of a name and its type: ``"uint64"``, ``"float64"`` or ``"int32"``. The
            first ones take the addresses of the units.
        units: Texts that write the address of a function to ``address_out``, by key; they are
            compiled at the same time as the snippet, with less effort.

    Returns:
        Function of the values of the other parameters. It releases the interpreter lock while it
        runs and may be called from several threads at once.

    Raises:
        Exception: Whatever Warp raises when the compiler refuses the text.
    """
    warp = import_warp()
    kernel = define_kernel(LANE_BLOCKS, key, snippet, parameters)
    own = [
        define_kernel(LANE_BLOCKS, name, text, [("address_out", "uint64")], _LITTLE_EFFORT)
        for name, text in units.items()
    ]
    with quiet(warp):
        modules = [kernel.module, *(unit.module for unit in own)]
        warp.force_load("cpu", modules, max_workers=min(len(modules), os.cpu_count() or 1))
        commands, addresses = [], []
        for unit in own:
            place = ctypes.c_uint64()
            inputs = [ctypes.addressof(place)]
            commands.append(warp.launch(unit, 1, inputs=inputs, device="cpu", record_cmd=True))
            commands[-1].launch()
            addresses.append(place.value)
        zeros = [0.0 if kind == "float64" else 0 for _, kind in parameters]
        command = warp.launch(kernel, dim=1, inputs=zeros, device="cpu", record_cmd=True)
    call = _direct_call(command) or _ordinary_launch(warp, kernel)
    if not own:
        return call

    def call_with_units(values: Sequence[Any], _keep: Any = commands) -> None:
        call([*addresses, *values])

    return call_with_units


def define_kernel(
    template: str,
    key: str,
    snippet: str,
    parameters: Sequence[tuple[str, str]],
    effort: int | None = None,
) -> Any:
    """Make a kernel of Warp in a module of its own; nothing is compiled yet.

    Args:
        template: Python source of the kernel around the native text ``SNIPPET``, with places
            ``key``, ``parameters``, ``names`` (of all parameters) and ``own`` (of all but the last
            two, the range of blocks).
        key: Identifier that names the kernel.
        snippet: C++ statements that see the parameters as local variables.
        parameters: Pairs of a name and its type, the range of blocks last.
        effort: Optimisation level; the one that Warp takes if None.
    """
    signature = ", ".join(f"{name}: wp.{kind}" for name, kind in parameters)
    names = [name for name, _ in parameters]
    source = template.format(
        key=key,
        parameters=signature,
        names=", ".join(names),
        own="".join(f"{name}, " for name in names[:-2]),
    )
    filename = f"<physim kernel {key}>"
    # Warp reads the source of a kernel back through linecache; an entry without time never expires
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = types.ModuleType(f"physim_kernel_{key}")
    options = {**_OPTIONS, "optimization_level": effort}
    module.__dict__.update(SNIPPET=snippet, OPTIONS=options)
    with quiet(import_warp()):
        exec(compile(source, filename, "exec"), module.__dict__)
    return getattr(module, key)


def _direct_call(command: Any) -> NativeFunction | None:
    codes = {ctypes.c_uint64: "Q", ctypes.c_double: "d", ctypes.c_int32: "i"}
    try:
        forward, bounds, values = command.hooks.forward, command.params[0], command.params[1:]
        pack = struct.Struct("@" + "".join(codes[type(value)] for value in values) + "0Q").pack
        bounds_reference = ctypes.byref(bounds)
        # a call with the recorded values runs zero blocks: it proves that the layout is as expected
        forward(bounds_reference, pack(*(value.value for value in values)))
    except (AttributeError, KeyError, TypeError, ctypes.ArgumentError):
        return None

    def call(values: Sequence[Any], _keep: Any = command) -> None:
        forward(bounds_reference, pack(*values))

    return call


def _ordinary_launch(warp: Any, kernel: Any) -> NativeFunction:
    def call(values: Sequence[Any]) -> None:
        warp.launch(kernel, dim=1, inputs=list(values), device="cpu", record_tape=False)

    return call
