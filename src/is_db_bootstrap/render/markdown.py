"""Pieces of Markdown for GitHub, which show any text as it is and obey none of it.

GitHub reads Markdown with HTML in it, and then looks for mentions, references and emoji in what it
has read. So each text from elsewhere is made harmless in both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from is_db_bootstrap.wording import cut, visible, visible_lines

#: Characters of a cell or a sentence. The rest is counted.
_LONGEST_TEXT = 600
#: Punctuation that Markdown or HTML may read as something else than itself.
_MARKUP = re.compile(r"[&<>\"'`*_{}\[\]()#+!|~$\\]")
#: What GitHub looks for in text that it has read: mentions, references to issues, emoji, addresses.
#: A code element is left alone.
_OBEYED = re.compile(r"@(?=\w)|#(?=\d)|:(?=[\w+\-/])|\bGH-(?=\d)|\bwww\.", re.IGNORECASE)
#: No width, and no reader takes what stands around it for one word.
_BREAK = "&#8203;"
#: Runs of backticks or tildes, which may end a fenced block.
_FENCES = re.compile(r"`+")
_SHORTEST_FENCE = 3
#: Bytes of the lines of a fenced block, and characters of one of these lines.
_MOST_BYTES = 24_000
_LONGEST_LINE = 2_000


def words(text: str) -> str:
    """A sentence, in one line."""
    line = visible(" ".join(text.split()), _LONGEST_TEXT)
    pieces = []
    end = 0
    for found in _OBEYED.finditer(line):
        pieces.append(_without_markup(line[end : found.end()]) + _BREAK)
        end = found.end()
    return "".join(pieces) + _without_markup(line[end:])


def code(text: str) -> str:
    """A name, in one line, as code. GitHub looks for nothing in code."""
    shown = _without_markup(visible(text, _LONGEST_TEXT)).replace(":", "&#58;")
    return f"<code>{shown}</code>"


def _without_markup(text: str) -> str:
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


def fenced(text: str, language: str) -> str:
    """Several lines as they are, in a block that nothing in them can end.

    Of many lines, and of a long line, the first part is shown and the rest is counted.
    """
    lines = visible_lines(text.replace("\r\n", "\n")).strip("\n").split("\n")
    shown: list[str] = []
    left = _MOST_BYTES
    for line in lines:
        short = cut(line.rstrip(), _LONGEST_LINE)
        left -= len(short.encode()) + 1
        if left < 0:
            break
        shown.append(short)
    if more := len(lines) - len(shown):
        shown.append(f"… {more} more lines")
    longest = max((len(run) for line in shown for run in _FENCES.findall(line)), default=0)
    fence = "`" * max(_SHORTEST_FENCE, longest + 1)
    return "\n".join([f"{fence}{language}", *shown, fence])


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def folded(summary: str, body: str) -> str:
    """A part that a reader unfolds. Both are Markdown already."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def hidden_line(text: str) -> str:
    """A line that nobody sees, by which a program finds the text again."""
    plain = re.sub(r"[^\w .:/]+", "-", visible(text), flags=re.ASCII)
    return f"<!-- {plain} -->"
