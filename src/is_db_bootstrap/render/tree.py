"""A blueprint's outline as a tree for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.render.screen import Node, Screen
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.stores.description import Branch

#: Wide enough that a line of a definition stays one when the output is no terminal: characters.
WIDTH = 200

#: The level below the blueprint's name, where the names of its stores stand.
_STORES = 1


def tree(outline: Branch, screen: Screen) -> str:
    """The outline that `blueprint.describe.outline` returns, as text.

    The words of definitions are as the server writes them.
    """
    return screen.tree(_tree_node(outline, level=0), width=WIDTH)


def _tree_node(branch: Branch, level: int) -> Node:
    """A branch and all below it. `level` counts the branches above it."""
    pieces = []
    if branch.name:
        pieces.append((visible(branch.name), "bold" if level == _STORES else "cyan"))
    if branch.text:
        gap = "  " if branch.name else ""
        pieces.append((f"{gap}{branch.text}", ""))
    below = [_tree_node(each, level + 1) for each in branch.branches]
    return Node(pieces, below)
