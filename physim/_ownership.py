"""Are ``solvers`` and ``constraints`` ours?

The two names are common. A script called ``solvers.py`` next to the user's own would be imported in
our place and fail in a puzzling way, so this check names the file that is in the way.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["check_ownership"]


def check_ownership() -> None:
    """Check that Python would import this distribution's ``solvers`` and ``constraints``.

    Nothing is imported; the look-up alone tells.

    Raises:
        ImportError: If one of them is missing or belongs to somebody else; names the file.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("solvers", "constraints"):
        expected = home / name / "__init__.py"
        spec = find_spec(name)
        if spec is None:
            raise ImportError(
                f"physim needs its package {name!r}, expected at {expected}, but Python finds "
                "none; install physim again"
            )
        # A folder without __init__.py has no origin, only a list of places.
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        found = Path(places[0]).resolve() if places else None
        if found != expected:
            raise ImportError(
                f"physim needs its own package {name!r} at {expected}, but {found} comes first on "
                "sys.path; rename that file or folder, or start Python elsewhere"
            )
