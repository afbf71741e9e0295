"""``python -m physim``: the command line."""

from physim.cli import main

main()
