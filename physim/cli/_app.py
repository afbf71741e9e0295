"""The commands and their names."""

from __future__ import annotations

import typer

from physim.cli._doctor import doctor
from physim.cli._errors import report_errors
from physim.cli._simulate import simulate
from physim.cli._solve import solve
from physim.cli._train import train
from physim.cli._train_constrained import constrained
from physim.cli._train_landscape import landscape
from physim.cli._train_ritz import ritz
from physim.cli._view import view

__all__ = ["app"]

app = typer.Typer(
    name="physim",
    help="Differentiable physics: simulation with hard contact, solvers.",
    no_args_is_help=True,
    add_completion=False,
    # Errors that we raise on purpose are one line; anything else is a defect and shows plainly.
    pretty_exceptions_enable=False,
)
for _command in (simulate, solve, view, doctor):
    app.command()(report_errors(_command))
train.command()(report_errors(constrained))
train.command()(report_errors(landscape))
train.command()(report_errors(ritz))
app.add_typer(train, name="train")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
) -> None:
    """Differentiable physics: simulation with hard contact."""
    if version:
        import physim

        typer.echo(f"physim {physim.__version__}")
        raise typer.Exit
