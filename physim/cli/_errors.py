"""Errors that we raise on purpose become one line and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

from solvers.core import PhysimError

__all__ = ["BAD_INPUT", "FAILURES", "INTERRUPTED", "report_errors"]

FAILURES = 1
BAD_INPUT = 2
INTERRUPTED = 130

P = ParamSpec("P")


def report_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Show a `PhysimError` of a command, or a file that it may not touch, without its traceback.

    Args:
        command: Function of a command.

    Returns:
        The function, which exits with 2 for bad input and 130 for Ctrl-C.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except PhysimError as error:
            typer.echo(f"physim: {error}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            # Without a file it is no matter of what the user gave.
            if error.filename is None:
                raise
            typer.echo(f"physim: {error.filename}: {error.strerror}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            typer.echo("physim: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return run
