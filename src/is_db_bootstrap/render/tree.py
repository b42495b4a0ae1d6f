"""A blueprint's outline as a tree for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.render.screen import Node, Screen

if TYPE_CHECKING:
    from is_db_bootstrap.stores.description import Branch

#: Wide enough that a line of a definition stays one when the output is no terminal: characters.
WIDTH = 200

#: The level below the blueprint's name, where the names of its stores stand.
_STORES = 1


def tree(outline: Branch, screen: Screen) -> str:
    """An outline of `blueprint.describe.outline`.

    Words of definitions are as the server writes them.
    """
    return screen.tree(_node(outline, level=0), width=WIDTH)


def _node(branch: Branch, level: int) -> Node:
    name_style = "bold" if level == _STORES else "cyan"
    words = [(branch.name, name_style)] if branch.name else []
    if branch.text:
        words.append((f"  {branch.text}" if branch.name else branch.text, ""))
    return Node(words, [_node(below, level + 1) for below in branch.branches])
