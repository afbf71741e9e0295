"""Newton's matrix of a tree by loops over tables: what ``elimination.cpp`` reads of a model.

The text is the same for all models and its loops follow the fill of the contacts that push, so
source and compile time do not grow with the fill, which for straight-line code would be the cube of
the degrees of freedom once contacts couple most branches.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physim.model.tree import Tree


def elimination_source(tree: Tree) -> str:
    """C++ functions that assemble, factor and solve; ``NV`` and ``NL`` must be in scope."""
    starts = [0]
    for above in tree.ancestors:
        starts.append(starts[-1] + len(above))
    rising = [other for above in tree.ancestors for other in sorted(above)]
    tables = [
        f"constexpr int WORDS = {-(-tree.nv // 64)};",
        integer_table("link_parent", (link.parent for link in tree.links)),
        integer_table("dof_link", tree.dof_link),
        integer_table("ancestors", rising),
        integer_table("ancestors_start", starts),
    ]
    text = resources.files("physim.dynamics").joinpath("elimination.cpp").read_text()
    return "\n".join([*tables, text])


def integer_table(name: str, values: Iterable[int]) -> str:
    """Constant array of whole numbers, never empty."""
    return f"constexpr int {name}[] = {{{', '.join(map(str, values)) or '0'}}};"
