"""The screen of a terminal: colours, and the terminal's own width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from is_db_bootstrap.render.screen import Column, Line, Node
from is_db_bootstrap.wording import visible, visible_lines

#: Wider than any table.
_ANY_WIDTH = 100_000


class TerminalScreen:
    """Text with the colours and the width of the terminal behind `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, line: Line) -> str:
        """One line, which the terminal breaks where it ends."""
        return self._console_text(_styled_text(line), soft_wrap=True)

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Line]], *, width: int
    ) -> str:
        """A table without lines, its titles in bold."""
        drawn = _table(columns, rows, breaks_all=False)
        console = self._console(width)
        options = console.options.update(max_width=_ANY_WIDTH)
        if Measurement.get(console, options, drawn).minimum > console.width:
            drawn = _table(columns, rows, breaks_all=True)
        return self._console_text(drawn, width=width)

    def tree(self, root: Node, *, width: int) -> str:
        """A tree with lines between its nodes."""
        drawn = Tree(_styled_text(root.line, visible_lines))
        _add_nodes(drawn, root.nodes)
        return self._console_text(drawn, width=width)

    def _console(self, width: int | None) -> Console:
        """A console. A terminal's own width comes before `width`."""
        own_width = None if self._stream.isatty() else width
        return Console(file=self._stream, highlight=False, width=own_width)

    def _console_text(
        self, shown: Any, *, width: int | None = None, soft_wrap: bool = False
    ) -> str:
        """What a console would print."""
        console = self._console(width)
        with console.capture() as capture:
            console.print(shown, soft_wrap=soft_wrap)
        return capture.get()


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Line]], *, breaks_all: bool) -> Table:
    """A table whose columns break where they may, or each of them on a narrow terminal.

    A column that may not break would lose its end there.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column.is_number else "left"
        may_break = breaks_all or column.may_break
        table.add_column(column.title, justify=justify, no_wrap=not may_break, overflow="fold")
    for row in rows:
        table.add_row(*(_styled_text(cell) for cell in row))
    return table


def _styled_text(line: Line, written: Callable[[str], str] = visible) -> Text:
    """A line with its styles. A line of one piece gives its style to the blanks of its cell too.

    `written` makes each piece of it harmless.
    """
    if len(line) == 1:
        words, style = line[0]
        return Text(written(words), style=style)
    return Text.assemble(*((written(words), style) for words, style in line))


def _add_nodes(tree: Tree, nodes: Sequence[Node]) -> None:
    for node in nodes:
        branch = tree.add(_styled_text(node.line, visible_lines))
        _add_nodes(branch, node.nodes)
