"""The fenced blocks of a page of the documentation, and a shell in which a reader tries them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
#: The first line of a block that is a file: `# name` or `// name`.
_NAME = re.compile(r"(?:#|//) (?P<name>[\w./-]+\.\w+)\n")
_ADDRESSES = (
    "POSTGRES_",
    "NEO4J_",
    "MILVUS_",
    "REDIS_",
    "DB_",
    "PG",
    "DATABASE_URL",
    "IS_DB_BOOTSTRAP_",
)


@dataclass(frozen=True)
class Block:
    """One fenced block. `number` counts the blocks of its page from 0."""

    page: str
    number: int
    kind: str
    text: str
    section: str

    def __str__(self) -> str:
        return f"{self.page} {self.number}"


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, which is named by its path below the root, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for number, found in enumerate(_BLOCK.finditer(text)):
        headings = re.findall(r"^#+ (.*)$", _without_blocks(text[: found.start()]), re.MULTILINE)
        section = headings[-1] if headings else ""
        yield Block(page, number, found["kind"], textwrap.dedent(found["text"]), section)


def _without_blocks(text: str) -> str:
    return _BLOCK.sub("", text)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a block of shell lines, and its remark."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command, _, remark = line.partition(" #")
        if command.strip() and not command.startswith("#"):
            yield command.strip(), remark.strip()


class Reader:
    """Somebody who types a page's lines in a folder, where our command is installed.

    `addresses` are the variables with which the stores are found.
    """

    def __init__(self, folder: Path, addresses: Mapping[str, str]) -> None:
        self.folder = folder
        programs = str(Path(sys.executable).parent)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_ADDRESSES)}
        self._environ = kept | {"PATH": f"{programs}:{kept['PATH']}"} | dict(addresses)

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one line. A `cd` holds for the lines after it."""
        if command.startswith("cd "):
            self.folder = self.folder / command.removeprefix("cd ")
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def follow(self, block: Block) -> None:
        """Do what a block shows: type its lines, write its file, or make its change of a file.

        A command must end with 0, or with the code that its remark has (`# exit 3`).
        """
        if block.kind in {"bash", "console"}:
            for command, remark in commands(block):
                told = re.match(r"exit (\d+)", remark)
                expected = int(told[1]) if told else 0
                done = self.type(command)
                shown = f"{block}: {command}\n{done.stdout}{done.stderr}"
                assert done.returncode == expected, shown
        elif block.kind == "diff":
            self._change(block)
        else:
            self.write(block)

    def write(self, block: Block) -> Path:
        """Write a block whose first line names its file."""
        named = _NAME.match(block.text)
        assert named, f"{block} does not begin with the name of its file"
        path = self.folder / named["name"]
        path.write_text(block.text[named.end() :], encoding="utf-8")
        return path

    def _change(self, block: Block) -> None:
        """Replace the lines that a block has with ` ` and `-` by those with ` ` and `+`."""
        first, *lines = block.text.splitlines(keepends=True)
        path = self.folder / first.removeprefix("--- ").strip()
        text = path.read_text(encoding="utf-8")
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{block}: {path.name} does not have once:\n{old}"
        path.write_text(text.replace(old, new), encoding="utf-8")
