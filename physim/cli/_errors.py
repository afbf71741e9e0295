"""Errors that we raise on purpose become one line and an exit code, warnings one line."""

from __future__ import annotations

import errno
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer

from solvers.core import PhysimError, PhysimWarning

__all__ = ["BAD_INPUT", "FAILURES", "INTERRUPTED", "report_errors"]

FAILURES = 1
BAD_INPUT = 2
INTERRUPTED = 130

# Of a write, which does not know its file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

P = ParamSpec("P")


def report_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Show errors of ours, and files that a command may not touch, without their traceback.

    A `PhysimWarning` is shown without its place.

    Args:
        command: Function of a command.

    Returns:
        The function, which exits with 2 for bad input and 130 for Ctrl-C.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _plain_warnings():
                command(*args, **kwargs)
        except PhysimError as error:
            typer.echo(f"physim: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            # Else it is no matter of what the user gave.
            if error.filename is None and error.errno not in _FULL:
                raise
            words = [str(w) for w in (error.filename, error.strerror) if w is not None]
            typer.echo(f"physim: {': '.join(words)}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            typer.echo("physim: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return run


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show our warnings as a line on standard error; those of others keep file and line."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if not issubclass(category, PhysimWarning):
                show_others(message, category, *where)
                return
            from rich.console import Console

            text = " ".join(str(message).split())
            Console(stderr=True).print(
                f"physim: warning: {text}",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

        warnings.showwarning = show  # type: ignore[assignment]
        yield
