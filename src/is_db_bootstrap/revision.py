"""The next revision of a blueprint: an Alembic revision, or a Cypher file.

Ids and numbers go on as the last one's do.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap import files
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings
    from is_db_bootstrap.stores.postgres.operations import Operation

#: Alembic's version table holds so many characters.
LONGEST_ID = 32
_HASH = re.compile(r"[0-9a-f]{12}")
_SCHEME = re.compile(r"(?P<before>.*?)(?P<number>\d{3,})(?P<after>_\w+)?")


def postgres(
    blueprint: Blueprint,
    message: str,
    settings: Settings | None,
    *,
    allow_drops: bool = False,
    report: Callable[[Operation], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the next Alembic revision, and `catalogue.json` and `schema.sql` for it; the files.

    With `settings`, it is what autogenerate finds between the blueprint's models and a scratch
    database at head on that server; none is written when there is no difference. Without, it is
    empty, and the other files are written by `refresh`. `report` receives each operation that is
    written, and each drop that is left out unless `allow_drops`; `warn` receives what `refresh`
    warns of. No file is overwritten, and a failure leaves none. Raises `ConfigurationError` for a
    blueprint whose files are not to be changed, for two heads, and for models that cannot be
    loaded.
    """
    folder = _own(blueprint, blueprint.migrations, "migrations")
    with tempfile.TemporaryDirectory() as temporary:
        made, operations = _made(
            blueprint, message, settings, Path(temporary), allow_drops=allow_drops
        )
        for operation in operations:
            report(operation)
        if made is None:
            return []
        path, text = folder / made.name, made.read_text(encoding="utf-8")
    _create(path, text)
    if settings is None:
        return [path]
    try:
        return [path, *refresh(blueprint, settings, warn)]
    except BaseException as exc:
        path.unlink(missing_ok=True)
        if isinstance(exc, BootstrapError):
            exc.hint = f"{exc.hint} No file was written.".strip()
        raise


def next_revision(blueprint: Blueprint, message: str) -> tuple[str, str]:
    """Id and file name of the next revision: `ng_0005` after `ng_0004`, `mplp_0007_orders` after `mplp_0006_extension`.

    After an id without a number, or one that Alembic has made, it is twelve hexadecimal digits, as Alembic makes them.
    """
    slug = _slug(message)
    chain = Chain.read(blueprint.migrations) if blueprint.migrations else Chain()
    head = chain.head
    scheme = (
        None
        if _is_hash(head, chain)
        else _SCHEME.fullmatch(head or f"{blueprint.name[: LONGEST_ID - 5]}_0000")
    )
    if scheme is None:
        return uuid.uuid4().hex[-12:], "%(rev)s_%(slug)s"  # as Alembic makes them
    number = str(int(scheme["number"]) + 1).zfill(len(scheme["number"]))
    revision = f"{scheme['before']}{number}"
    if scheme["after"]:
        return f"{revision}_{slug}"[:LONGEST_ID].rstrip("_"), "%(rev)s"
    return revision, "%(rev)s_%(slug)s"


def _is_hash(head: str, chain: Chain) -> bool:
    """Whether Alembic made the id: twelve hexadecimal digits, with a letter in this one or in another of the chain."""
    alike = [r for r in chain.order if _HASH.fullmatch(r)]
    return head in alike and any(not r.isdecimal() for r in alike)


def refresh(
    blueprint: Blueprint, settings: Settings, warn: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write `catalogue.json` and `schema.sql` again, from a scratch database on the server of `settings`.

    `warn` is told of a revision that cannot be written as SQL; then only `catalogue.json` is written.
    """
    from is_db_bootstrap.stores.postgres.scratch import write

    _own(blueprint, blueprint.migrations, "migrations")
    return list(write(settings.need("postgres"), blueprint, settings.timing, warn))


def stale(blueprint: Blueprint) -> list[str]:
    """What is generated beside the revisions and is not that of the newest one, in words.

    Needs no server.

    `schema.sql`, where there is one, is generated again and compared; `catalogue.json`, for which a
    server would be needed, says of which revision it is.
    """
    from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME, Catalogue
    from is_db_bootstrap.stores.postgres.scratch import SCHEMA_NAME, schema_sql

    folder = blueprint.migrations
    if folder is None:
        return []
    head, found = Chain.read(folder).head, []
    catalogue = Catalogue.read(folder)
    if catalogue is None:
        found.append(f"{folder / FILE_NAME} is missing")
    elif catalogue.head != head:
        found.append(f"{folder / FILE_NAME} is of revision {catalogue.head}; the newest is {head}")
    schema = folder / SCHEMA_NAME
    try:
        if schema.is_file() and schema.read_text(encoding="utf-8") != schema_sql(blueprint):
            found.append(f"{schema} is not what the revisions make")
    except ConfigurationError as exc:
        found.append(f"{schema} cannot be compared. {exc}")
    return found


def cypher(blueprint: Blueprint, message: str) -> Path:
    """Write the next Cypher file, with a line that says what belongs there."""
    folder = _own(blueprint, blueprint.cypher, "cypher")
    known = cypher_file.load(folder)
    numbers = [file.order[0] for file in known if not file.repeatable]
    width = max(
        (len(file.version.split(".")[0]) for file in known if not file.repeatable), default=3
    )
    path = folder / f"V{str(max(numbers, default=0) + 1).zfill(width)}__{_slug(message)}.cypher"
    _create(
        path, f"// {message}. Schema statements stand apart from data, each with IF NOT EXISTS.\n"
    )
    return path


def _slug(message: str) -> str:
    slug = re.sub(r"\W+", "_", message.lower()).strip("_")
    if not slug:
        raise ConfigurationError(
            f"The message {message!r} says nothing.", hint='Such as -m "add orders".'
        )
    return slug[:40].rstrip("_")


def _own(blueprint: Blueprint, folder: Path | None, name: str) -> Path:
    if folder is None:
        raise ConfigurationError(
            f"{blueprint.name} has no folder {name}.",
            hint=f"Make one beside its module: mkdir {name}",
        )
    if files.is_installed(folder):
        raise ConfigurationError(
            f"{blueprint.name} came with the package; its files are not changed.",
            hint="Give a folder of your own: --blueprint path/to/folder",
        )
    return folder


def _create(path: Path, text: str) -> None:
    try:
        files.create_text(path, text)
    except FileExistsError as exc:
        raise ConfigurationError(
            f"{path} is there already; it was not overwritten.", hint="Give another message."
        ) from exc


def _made(
    blueprint: Blueprint,
    message: str,
    settings: Settings | None,
    folder: Path,
    *,
    allow_drops: bool,
) -> tuple[Path | None, list[Operation]]:
    """The revision's file in a folder that nobody else reads, and its operations.

    No file when there is nothing to write.
    """
    from is_db_bootstrap.stores.postgres.alembic import engine, write_revision
    from is_db_bootstrap.stores.postgres.scratch import at_head

    revision, template = next_revision(blueprint, message)
    if settings is None:
        return write_revision(None, blueprint, message, revision, template, folder=folder)
    with at_head(settings.need("postgres"), blueprint, settings.timing) as scratch:
        found = engine(scratch, "public", settings.timing)
        try:
            return write_revision(
                found,
                blueprint,
                message,
                revision,
                template,
                folder=folder,
                allow_drops=allow_drops,
            )
        finally:
            found.dispose()
