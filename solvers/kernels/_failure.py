"""What a compiler says when it refuses a text, brought to the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from solvers.core import PhysimError
from solvers.kernels._request import KernelRequest
from solvers.kernels._warp import cache_directory, captured_standard_error

__all__ = ["KernelBuildError", "compiled"]

Compiled = TypeVar("Compiled")


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


def compiled(request: KernelRequest, compile_text: Callable[[str], Compiled]) -> Compiled:
    """Compile the text of a request.

    Args:
        request: What is asked for.
        compile_text: Compiles a text and raises if the compiler refuses it.

    Returns:
        What ``compile_text`` returns.

    Raises:
        KernelBuildError: If the compiler refuses the text; it is then kept in a file.
    """
    # complaints then count lines from the start of the text that is kept on failure
    text = f'\n#line 1 "{request.key}.cpp"\n{request.source}'
    with captured_standard_error() as words:
        result, failure = _attempt(compile_text, text)
    if result is not None:
        others = [line for line in words if not line.startswith("Warp ")]
        if others:
            print("\n".join(others), file=sys.stderr)
        return result
    path = cache_directory() / "failed" / f"{request.key}.cpp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(request.source)
    for key, text in request.units.items():
        (path.parent / f"{key}.cpp").write_text(text)
    raise KernelBuildError(
        f"kernel {request.name!r} does not compile; its text is in {path}. First complaints:\n"
        + "\n".join(_complaints(words) or [str(failure)]),
        source=str(path),
    ) from failure


def _attempt(
    compile_text: Callable[[str], Compiled], text: str
) -> tuple[Compiled | None, Exception | None]:
    try:
        return compile_text(text), None
    except ImportError:
        raise
    except Exception as error:
        # Warp raises the bare base class for a refused text
        return None, error


def _complaints(words: list[str]) -> list[str]:
    errors = [i for i, line in enumerate(words) if "error:" in line]
    # the line after a complaint quotes the text at fault
    return [line for i in errors[:4] for line in words[i : i + 2]]
