"""Names of elements: filling in missing ones and finding what a misspelt one meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from solvers.core import ModelError

__all__ = ["Named", "close_matches", "find_by_name", "fill_names"]


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name."""
        ...


_Record = TypeVar("_Record", bound=Named)


def fill_names(
    names: Sequence[str], word: str | Sequence[str], *, offset: int = 0
) -> tuple[str, ...]:
    """Give nameless elements the name ``word_index``, made unique.

    Args:
        names: Names, empty where the file gives none.
        word: Kind of element, of all or of each.
        offset: Subtracted from the position to get the number in the name.

    Returns:
        Names without empty ones.
    """
    taken, filled = set(names), []
    for position, name in enumerate(names):
        if not name:
            kind = word if isinstance(word, str) else word[position]
            name = f"{kind}_{position - offset}"
            while name in taken:
                name += "_"
            taken.add(name)
        filled.append(name)
    return tuple(filled)


def close_matches(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name.

    Args:
        name: What was asked for.
        known: What there is.

    Returns:
        A sentence with the nearest names, or with the first ones if none is near.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {', '.join(repr(item) for item in near)}?"
    if not known:
        return " There is none."
    return f" Known: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}."


def find_by_name(records: Sequence[_Record], name: str, word: str) -> _Record:
    """The record of a given name.

    Args:
        records: Where to look.
        name: Its name.
        word: Kind of element, for the message.

    Returns:
        The first record with that name.

    Raises:
        ModelError: If there is none; the message lists close matches.
    """
    for record in records:
        if record.name == name:
            return record
    matches = close_matches(name, [record.name for record in records])
    raise ModelError(f"the model has no {word} named {name!r}.{matches}", element=str(name))
