"""The command line: ``physim simulate``, ``solve``, ``train``, ``view`` and ``doctor``.

Commands load what they need when they run, so that ``physim --help`` answers at once.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command that ``sys.argv`` asks for and exit with its code.

    Exit codes: 0 done, 1 done but some item failed, 2 bad input, 130 interrupted.
    """
    from physim.cli._app import app

    app()
