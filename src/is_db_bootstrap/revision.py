"""The next revision of a blueprint: an Alembic revision, or a Cypher file.

The new id or number follows the scheme of the last one.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap import files
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of, folder_of
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings
    from is_db_bootstrap.stores.postgres.operations import Operation
    from is_db_bootstrap.stores.postgres.revision_draft import Draft
    from is_db_bootstrap.stores.postgres.team_revision import Place

#: Characters that Alembic's version table holds.
LONGEST_ID = 32
#: What the number of a first revision adds to the blueprint's name.
_FIRST_NUMBER = "_0000"
#: An id as Alembic makes one.
_HASH = re.compile(r"[0-9a-f]{12}")
_HASH_LENGTH = 12
#: An id with a number, such as `ng_0004` and `mplp_0006_extension`.
_SCHEME = re.compile(r"(?P<before>.*?)(?P<number>\d{3,})(?P<after>_\w+)?")
#: Alembic's templates of a file's name.
_ID_AND_SLUG = "%(rev)s_%(slug)s"
_ID_ONLY = "%(rev)s"
#: Digits of a Cypher file's number, unless the others have more.
_CYPHER_DIGITS = 3
#: Characters of a message that become part of a name.
_LONGEST_SLUG = 40


def postgres(
    blueprint: Blueprint,
    message: str,
    settings: Settings | None,
    *,
    allow_drops: bool = False,
    allow_server_wide: bool = False,
    report: Callable[[Operation], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the next Alembic revision, and return the files that were written.

    With `settings`, the revision is what autogenerate finds between the blueprint's models and a
    scratch database at head on that server. No file is written when there is no difference.
    `catalogue.json` and `schema.sql` are written too. The revision comes last, whole or not at all,
    so a process that dies leaves no revision that nobody has tried. Without `settings`, the
    revision is empty, and `refresh` writes the other files later.

    `report` receives each operation that is written, each drop that is left out, and each
    difference that a person has to write. `allow_drops` leaves no drop out. With
    `allow_server_wide`, revisions may act on the whole server. `warn` receives what
    `refresh` warns of, a sentence for each type that the revision cannot import, and what the trial
    of the revision has shown (`stores.postgres.revision_draft`). No file is overwritten, and a
    failure leaves no file. Raises `ConfigurationError` for a blueprint whose files are not to be
    changed, for two heads, and for models that cannot be loaded.
    """
    from is_db_bootstrap.stores.postgres.scratch import replace_files
    from is_db_bootstrap.stores.postgres.server_wide import server_wide_allowed

    folder = _writable_folder(blueprint, blueprint.migrations, "migrations")
    with (
        tempfile.TemporaryDirectory() as temporary,
        server_wide_allowed(allowed=allow_server_wide),
    ):
        draft = _draft_revision(
            blueprint, message, settings, Path(temporary), allow_drops=allow_drops, warn=warn
        )
        for operation in draft.operations:
            report(operation)
        if draft.path is None:
            return []
        path = folder / draft.path.name
        if path.exists():
            raise _is_there(path)
        text = draft.path.read_text(encoding="utf-8")
    others = replace_files(draft.generated)
    _create_file(path, text)
    return [path, *others]


def team(
    blueprint: Blueprint,
    message: str,
    settings: Settings | None,
    place: Place,
    *,
    allow_drops: bool = False,
    allow_server_wide: bool = False,
    report: Callable[[Operation], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the next revision of a team's own environment, and return the files that were written.

    All is as in `postgres`, but that the team's template, hooks, folders and options hold. `place`
    says where the revision belongs.
    """
    from is_db_bootstrap.settings import Timing
    from is_db_bootstrap.stores.postgres.scratch import replace_files
    from is_db_bootstrap.stores.postgres.server_wide import server_wide_allowed
    from is_db_bootstrap.stores.postgres.team_revision import draft_team_revision, run_hooks

    url = settings.need("postgres") if settings else None
    timing = settings.timing if settings else Timing()
    with (
        tempfile.TemporaryDirectory() as temporary,
        server_wide_allowed(allowed=allow_server_wide),
        _no_file_written(),
    ):
        draft = draft_team_revision(
            url,
            blueprint,
            timing,
            message,
            where=place,
            folder=Path(temporary),
            allow_drops=allow_drops,
            warn=warn,
        )
        for operation in draft.operations:
            report(operation)
        if draft.path is None or draft.place is None:
            return []
        if draft.place.exists():
            raise _is_there(draft.place)
        text = draft.path.read_text(encoding="utf-8")
    others = replace_files(draft.generated)
    draft.place.parent.mkdir(parents=True, exist_ok=True)
    _create_file(draft.place, text)
    run_hooks(blueprint, draft.place)
    return [draft.place, *others]


@contextmanager
def _no_file_written() -> Iterator[None]:
    """Say of a failure that it has left no file."""
    try:
        yield
    except BootstrapError as exc:
        exc.hint = f"{exc.hint} No file was written.".strip()
        raise


def next_revision(blueprint: Blueprint, message: str) -> tuple[str, str]:
    """Id of the next revision, and Alembic's template of its file's name.

    The id is `ng_0005` after `ng_0004`, and `mplp_0007_orders` after `mplp_0006_extension`. After
    an id without a number, or an id that Alembic has made, the id is twelve hexadecimal digits, as
    Alembic makes them.
    """
    slug = _file_slug(message)
    chain = Chain.read(blueprint.migrations) if blueprint.migrations else Chain()
    scheme = _number_scheme(blueprint, chain)
    if scheme is None:
        return uuid.uuid4().hex[-_HASH_LENGTH:], _ID_AND_SLUG
    number = _next_number(scheme["number"])
    revision = f"{scheme['before']}{number}"
    if scheme["after"]:
        return f"{revision}_{slug}"[:LONGEST_ID].rstrip("_"), _ID_ONLY
    return revision, _ID_AND_SLUG


def _number_scheme(blueprint: Blueprint, chain: Chain) -> re.Match[str] | None:
    """The parts of the last id. None when Alembic made that id, or when the id has no number."""
    head = chain.head
    if _is_hash(head, chain):
        return None
    prefix = blueprint.name[: LONGEST_ID - len(_FIRST_NUMBER)]
    return _SCHEME.fullmatch(head or f"{prefix}{_FIRST_NUMBER}")


def _next_number(digits: str) -> str:
    """The number after `digits`, with as many digits."""
    return str(int(digits) + 1).zfill(len(digits))


def _is_hash(head: str, chain: Chain) -> bool:
    """Whether Alembic made the id `head`, which then is twelve hexadecimal digits.

    Twelve decimal digits may be a person's number. Such an id counts as Alembic's only when another
    id of the chain has twelve hexadecimal digits with a letter among them.
    """
    alike = [revision for revision in chain.order if _HASH.fullmatch(revision)]
    has_letters = any(not revision.isdecimal() for revision in alike)
    return head in alike and has_letters


def refresh(
    blueprint: Blueprint,
    settings: Settings,
    warn: Callable[[str], None] = lambda _: None,
    *,
    allow_server_wide: bool = False,
) -> list[Path]:
    """Write `catalogue.json` and `schema.sql` again, and return the files that were written.

    Their content comes from a scratch database on the server of `settings`. `warn` receives a
    sentence when a revision cannot be written as SQL. Then only `catalogue.json` is written. With
    `allow_server_wide`, revisions may act on the whole server, such as by `CREATE ROLE`.
    """
    from is_db_bootstrap.stores.postgres.scratch import write
    from is_db_bootstrap.stores.postgres.server_wide import server_wide_allowed

    _writable_folder(blueprint, folder_of(blueprint), "migrations")
    with server_wide_allowed(allowed=allow_server_wide):
        return list(write(settings.need("postgres"), blueprint, settings.timing, warn))


def stale(blueprint: Blueprint) -> list[str]:
    """The generated files that are not those of the newest revision, in words.

    This needs no server. A `schema.sql` that is there is compared with one that is generated now. A
    `catalogue.json` cannot be generated without a server, but the file names its revision.
    """
    from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME, Catalogue
    from is_db_bootstrap.stores.postgres.lineage_table import without_records
    from is_db_bootstrap.stores.postgres.scratch import SCHEMA_NAME, schema_sql

    folder = folder_of(blueprint)
    if folder is None:
        return []
    head = chain_of(blueprint).head
    found = []
    catalogue = Catalogue.read(folder)
    if catalogue is None:
        found.append(f"{folder / FILE_NAME} is missing")
    elif catalogue.head != head:
        found.append(f"{folder / FILE_NAME} is of revision {catalogue.head}; the newest is {head}")
    schema = folder / SCHEMA_NAME
    if schema.is_file():
        try:
            # A file of an earlier version records its lineage as that version did.
            there = without_records(schema.read_text(encoding="utf-8"))
            if there != without_records(schema_sql(blueprint)):
                found.append(f"{schema} is not what the revisions make")
        except ConfigurationError as exc:
            found.append(f"{schema} cannot be compared. {exc}")
    return found


def cypher(blueprint: Blueprint, message: str) -> Path:
    """Write the next Cypher file, with a line that says what belongs there."""
    folder = _writable_folder(blueprint, blueprint.cypher, "cypher")
    versioned = [file for file in cypher_file.load(folder) if not file.repeatable]
    last_number = max((file.order[0] for file in versioned), default=0)
    digits = [len(file.version.split(".")[0]) for file in versioned]
    number = str(last_number + 1).zfill(max(digits, default=_CYPHER_DIGITS))
    path = folder / f"V{number}__{_file_slug(message)}.cypher"
    comment = f"// {message}. Schema statements stand apart from data, each with IF NOT EXISTS.\n"
    _create_file(path, comment)
    return path


def _file_slug(message: str) -> str:
    """The message as part of a file's name, such as `add_orders`.

    Raises `ConfigurationError` for a message without letters and digits.
    """
    slug = re.sub(r"\W+", "_", message.lower()).strip("_")
    if not slug:
        raise ConfigurationError(
            f"The message {message!r} says nothing.", hint='Such as -m "add orders".'
        )
    return slug[:_LONGEST_SLUG].rstrip("_")


def _writable_folder(blueprint: Blueprint, folder: Path | None, name: str) -> Path:
    """The folder `name` of a blueprint.

    Raises `ConfigurationError` when there is no such folder, or when the folder came with the
    package.
    """
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


def _create_file(path: Path, text: str) -> None:
    """Write a new file. Raises `ConfigurationError` when there is a file of that name."""
    try:
        files.create_text(path, text)
    except FileExistsError as exc:
        raise _is_there(path) from exc


def _is_there(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is there already; it was not overwritten.", hint="Give another message."
    )


def _draft_revision(
    blueprint: Blueprint,
    message: str,
    settings: Settings | None,
    folder: Path,
    *,
    allow_drops: bool,
    warn: Callable[[str], None],
) -> Draft:
    """Write the next revision into `folder`, which nobody else reads."""
    from is_db_bootstrap.stores.postgres.alembic import write_revision
    from is_db_bootstrap.stores.postgres.revision_draft import (
        Draft,
        NewRevision,
        draft_from_models,
    )

    revision, template = next_revision(blueprint, message)
    if settings is None:
        return Draft(write_revision(None, blueprint, message, revision, template, folder=folder))
    wanted = NewRevision(message, revision, template, allow_drops)
    url = settings.need("postgres")
    with _no_file_written():
        return draft_from_models(url, blueprint, settings.timing, wanted, folder, warn=warn)
