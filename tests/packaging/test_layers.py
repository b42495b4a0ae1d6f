"""The import rule of docs/architecture.md and the rules of the house as code."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import blueprint_names
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.stores.kinds import KINDS
from pages import ROOT

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "is_db_bootstrap"

#: From the bottom up: a module imports modules of its own layer and of those below. The longest
#: name that fits counts.
LAYERS = [
    {"errors", "grant_list", "names", "nearest", "results", "events", "event_words", "sentences"}
    | {"rungs", "vector_results", "wording"},
    {
        "settings",
        "files",
        "folders",
        "private_files",
        "guests",
        "process_tree",
        "blueprint",
        "engine.lineage",
        "engine.memory",
        "engine.memory_text",
        "engine.owner",
        "engine.retry",
        "engine.store",
        "stores.description",
        "stores.existing",
        "stores.kind",
        "stores.kinds",
    }
    | {f"stores.{store}.kind" for store in STORE_ORDER},
    {"engine", "render", "stores", "observers"},
    {
        "blueprint.load",
        "blueprint.beside",
        "blueprint.describe",
        "blueprint.fingerprint",
        "blueprint.listing",
        "app",
        "client_imports",
        "file_check",
        "fleet",
        "grants",
        "leftovers",
        "machine",
        "migrate",
        "migrate_cypher",
        "revision",
        "scaffold",
        "unlock",
        "vector",
    },
    {"local", "testing", "access", "blueprints"},
    {"cli", "__main__"},
]
#: These stand side by side: none imports another.
PARTS = {"engine", "render", "stores", "observers"}

#: Client libraries, and the modules that may import them.
CLIENTS = {
    "psycopg": ("stores.postgres", "local", "access", "blueprints.helpdesk", "testing."),
    "sqlalchemy": ("stores.postgres", "blueprints.", "access", "testing."),
    "alembic": ("stores.postgres",),
    "neo4j": ("stores.neo4j", "blueprints.", "access", "local", "testing."),
    "pymilvus": ("stores.milvus", "blueprints.", "access", "testing."),
    "redis": ("stores.redis", "blueprints.", "access", "testing."),
}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path):
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path):
    """Every node of the parsed module."""
    return tuple(ast.walk(tree_of(path)))


def in_each(modules):
    """Make one test of a check of a module: it fails with each module that does not pass.

    A test of its own for each module would cost a minute.
    """

    def decorate(check):
        def test():
            failures = {}
            for module in modules:
                try:
                    check(module)
                except AssertionError as exc:
                    failures[module] = str(exc)
            assert not failures

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def imports(path):
    """Every absolute name that a module imports, wherever the statement stands."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module):
    """The number of a module's layer, None where it has none."""
    names = module.split(".")
    for length in range(len(names), 0, -1):
        prefix = ".".join(names[:length])
        for number, layer_names in enumerate(LAYERS):
            if prefix in layer_names:
                return number
    return None


MODULES = {
    name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"
}


def imported_modules(module):
    """The modules of this package that `module` imports, `TYPE_CHECKING` included."""
    for name in imports(MODULES[module]):
        inside = name.removeprefix("is_db_bootstrap.")
        if inside == name:
            continue
        yield inside if inside in MODULES else inside.rpartition(".")[0]


@in_each(MODULES)
def test_imports_point_down(module):
    assert layer(module) is not None, f"{module} has no layer; docs/architecture.md lists them"
    for other in filter(None, imported_modules(module)):
        assert layer(other) <= layer(module), f"{module} imports {other}, which is above it"
        room, other_room = module.split(".")[0], other.split(".")[0]
        beside = room != other_room and layer(other) == layer(module)
        assert not (beside and {room, other_room} <= PARTS), (
            f"{module} imports {other}, which stands beside it"
        )


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: set(imported_modules(module)) - {module, ""} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@in_each(MODULES)
def test_a_reference_system_is_imported_by_its_own_modules_only(module):
    own = ".".join(module.split(".")[:2])
    foreign = [
        m for m in imported_modules(module) if m.startswith("blueprints.") and not m.startswith(own)
    ]
    assert foreign == []


@in_each(MODULES)
def test_a_client_library_is_imported_by_its_own_store_only(module):
    for name in imports(MODULES[module]):
        allowed = CLIENTS.get(name.split(".")[0])
        assert allowed is None or module.startswith(allowed), f"{module} imports {name}"


@in_each(MODULES)
def test_only_the_settings_and_the_edges_read_the_environment(module):
    if module.split(".")[0] in {"settings", "cli", "local", "testing"}:
        return
    read = [
        n
        for n in nodes_of(MODULES[module])
        if isinstance(n, ast.Attribute)
        and n.attr in {"environ", "getenv"}
        and isinstance(n.value, ast.Name)
        and n.value.id == "os"
    ]
    assert not read, f"{module}, line {read[0].lineno}"


#: What every store's folder has, and what of the store it is.
ROLE_FILES = {
    "kind": "what other parts need to know of it",
    "description": "what a blueprint declares about it, told",
    "check": "what is wrong with such a declaration",
    "connection": "how a client is made of an address",
    "errors": "what its client raises, in the words of this tool",
    "compare": "what is declared against what was found",
    "bootstrapper": "the story of one run",
    "existing": "what a running store holds, as a declaration",
    "grants": "the privileges that a role needs there",
    "adoption": "what somebody else has made, to be taken over",
    "selftest": "whether it does what was declared",
    "ladder": "where it is, and what a ping has seen of each rung",
    "diagnosis": "what a bug report needs to know of it",
}


def store_folders():
    return {path.parent.name for path in (PACKAGE / "stores").glob("*/__init__.py")}


def role_files(store):
    return {path.stem for path in (PACKAGE / "stores" / store).glob("*.py")}


def test_every_folder_of_a_store_is_one_of_the_registry():
    assert store_folders() == set(STORE_ORDER)


@pytest.mark.parametrize("store", STORE_ORDER)
def test_every_store_folder_has_the_same_role_files(store):
    assert set(ROLE_FILES) - role_files(store) == set()


def test_the_architecture_page_lists_just_these_role_files():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## A store\n", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"^\| `(\w+)\.py` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted([*ROLE_FILES, "lock", "files"])


@pytest.mark.parametrize("store", STORE_ORDER)
def test_a_store_has_a_lock_file_exactly_if_it_can_lock(store):
    assert ("lock" in role_files(store)) == KINDS[store].can_lock


@pytest.mark.parametrize("store", STORE_ORDER)
def test_a_store_has_a_files_module_exactly_if_it_is_declared_by_files(store):
    folders = {field.name for field in fields(Blueprint) if "Path" in str(field.type)}
    declared_by = set(KINDS[store].declared_by)
    assert ("files" in role_files(store)) == bool(declared_by & folders)


@pytest.mark.parametrize("role", ROLE_FILES)
def test_a_role_file_has_content_of_its_own(role):
    """A file that only imports would be there for its name."""
    for store in STORE_ORDER:
        path = PACKAGE / "stores" / store / f"{role}.py"
        tree = tree_of(path)
        own = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        assert [node for node in tree.body if isinstance(node, own)], path


@pytest.mark.parametrize("store", STORE_ORDER)
def test_only_the_errors_module_of_a_store_translates_what_its_client_raises(store):
    """So no second place gives one failure another message."""
    for path in (PACKAGE / "stores" / store).glob("*.py"):
        tree = tree_of(path)
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert ("translated" in names) == (path.stem == "errors"), path


@pytest.mark.parametrize("room", ["engine", "fleet"])
def test_a_room_names_no_store(room):
    modules = {name: path for name, path in MODULES.items() if name.split(".")[0] == room}
    named = [
        f"{name}: {store}"
        for name, path in modules.items()
        for store in STORE_ORDER
        if store in path.read_text(encoding="utf-8").lower()
    ]
    assert modules
    assert named == []


def said(tree):
    """Each text and each name in a module, without its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in docstrings:
                yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias):
            yield node.name


@in_each([m for m in MODULES if m.split(".")[0] == "settings"])
def test_the_settings_name_no_store(module):
    """What is true of one store only, its `StoreKind` says."""
    tree = tree_of(MODULES[module])
    found = [text for text in said(tree) if any(name in text.lower() for name in STORE_ORDER)]
    assert found == []


#: Modules that write an address with its password: for a client, or as a variable of a test.
WRITERS = {
    "stores.redis.connection",
    "stores.neo4j.connection",
    "testing.plugin",
    "testing.session",
    "cli._fleet",  # for a digest, and without the password
    "settings.elsewhere",  # for a revision that is only tried
    "stores.postgres.connection",  # for a team's env.py
}


@in_each(MODULES)
def test_one_module_of_each_store_makes_client_arguments_of_an_address(module):
    calls = [node for node in nodes_of(MODULES[module]) if isinstance(node, ast.Call)]
    written = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "reveal"]
    assert not written or module in WRITERS, f"{module}, line {written[0].lineno}"


@pytest.mark.parametrize("store", STORE_ORDER)
def test_every_store_has_its_one_function_for_client_arguments(store):
    tree = tree_of(MODULES[f"stores.{store}.connection"])
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert names.count("client_arguments") == 1


def texts(path):
    """Every text of a module's code that is no docstring."""
    docstrings = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}
    for node in nodes_of(path):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


@in_each([m for m in MODULES if m.split(".")[0] == "blueprint"])
def test_the_blueprint_package_names_no_store(module):
    named = [t for t in texts(MODULES[module]) for s in STORE_ORDER if s in t.lower()]
    assert named == []
    own_modules = tuple(f"stores.{store}" for store in STORE_ORDER)
    assert [m for m in imported_modules(module) if m.startswith(own_modules)] == []


@in_each([m for m in MODULES if m.split(".")[0] == "render"])
def test_what_serves_every_store_names_none(module):
    text = MODULES[module].read_text(encoding="utf-8").lower()
    assert [store for store in STORE_ORDER if store in text] == []


@in_each(MODULES)
def test_the_library_for_terminals_is_imported_by_the_screen_of_a_terminal_only(module):
    if module in {"render.terminal", "render.live", "render.fleet_live"}:
        return
    assert [name for name in imports(MODULES[module]) if name.split(".")[0] == "rich"] == []


@in_each([m for m in MODULES if m.startswith("render.")])
def test_renderers_return_text_and_print_nothing(module):
    if module == "render.live":  # it draws while a run goes on
        return
    calls = [node.func for node in nodes_of(MODULES[module]) if isinstance(node, ast.Call)]
    names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
    assert names & {"print", "echo", "write"} <= (
        {"print"} if module == "render.terminal" else set()
    )


# --- the form of the code

SOURCES = sorted(PACKAGE.rglob("*.py"))
#: What would set lines by hand.
WITHOUT_FORMATTER = re.compile(r"#\s*fmt:\s*(skip|off)")
#: A waived rule names itself and, behind a dash, why it does not hold here.
NOQA = re.compile(r"#\s*noqa\b", re.IGNORECASE)
NOQA_WITH_REASON = re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S")
#: mypy reads nothing but a comment behind the brackets, so the reason is one.
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore\b")
TYPE_IGNORE_WITH_REASON = re.compile(r"# type: ignore\[[a-z, -]+\]  # (?!noqa)\S")


def lines_of(paths):
    """Each line of the files, with its place."""
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{path.relative_to(REPOSITORY)}:{number}", line


@pytest.mark.parametrize("folder", ["src", "tests", "migrations", "benchmarks"])
def test_the_formatter_sets_every_line(folder):
    paths = sorted((REPOSITORY / folder).rglob("*.py"))
    assert paths
    assert [place for place, line in lines_of(paths) if WITHOUT_FORMATTER.search(line)] == []


@pytest.mark.parametrize(
    ("waiver", "with_reason"),
    [(NOQA, NOQA_WITH_REASON), (TYPE_IGNORE, TYPE_IGNORE_WITH_REASON)],
    ids=["noqa", "type-ignore"],
)
def test_every_waived_rule_has_its_reason(waiver, with_reason):
    waived = [(place, line) for place, line in lines_of(SOURCES) if waiver.search(line)]
    assert waived
    assert [place for place, line in waived if not with_reason.search(line)] == []


#: Modules outside of the engine that wait, and why no run's deadline can be theirs.
MAY_WAIT = {
    "access.database": "the health check of an application, which is no run",
    "cli.local": "a stack in the foreground stays up until a signal",
    "local.class_data": "a process of its own, which lets the server start first",
    "local.process": "a local server gets time to end, before it is killed",
    "local.start": "threads wait until the clients are imported",
    "process_tree": "killed processes are gone a moment later, also without any run",
    "stores.milvus.changes": "only the server knows when an index or a load is done",
    "stores.redis.selftest": "the self-test is that a key ends by itself",
    "testing.isolation": "a heartbeat of a test session",
    "testing.neo4j_turn": "a test session waits for its turn on a shared server",
    "testing.redis": "a test session waits for its turn in a logical database",
}


def waits_in(module):
    """Each use of `time.sleep` or of a method `wait` in a module.

    A method that calls its own class's is none: psycopg sends a statement by `Connection.wait`.
    """
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.Attribute) and node.attr in {"sleep", "wait"}:
            if not _is_super(node.value):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in {"asyncio", "time"}:
            yield from (node.lineno for alias in node.names if alias.name in {"sleep", "wait"})


def _is_super(node):
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "super"


def test_only_the_engine_waits_except_where_there_is_a_reason():
    outside = [module for module in MODULES if module.split(".")[0] != "engine"]
    waiting = {module for module in outside if list(waits_in(module))}
    assert waiting == set(MAY_WAIT)


def test_the_engine_waits():
    """So the rule above looks for the right names."""
    assert list(waits_in("engine.context"))
    assert list(waits_in("engine.retry"))


def loaded_after(code):
    """Which client libraries a fresh interpreter has loaded after `code`."""
    report = f"{code}\nimport sys\nprint('loaded:', *sorted({set(CLIENTS)!r} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return output.splitlines()[-1].split()[1:]


HELPS = [
    [],
    *([c] for c in ("apply", "plan", "verify", "wait", "status", "blueprints", "local", "migrate")),
    ["local", "up"],
    ["blueprints", "show"],
    *(
        ["migrate", c]
        for c in (
            "ini",
            "init",
            "upgrade",
            "downgrade",
            "current",
            "history",
            "check",
            "stamp",
            "sql",
        )
    ),
    ["new"],
    ["repair"],
    ["revision"],
    ["selftest"],
    ["doctor"],
    ["setup"],
    ["check"],
]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_imports_no_client_library(command):
    call = (
        f"from is_db_bootstrap.cli import main\ntry: main({[*command, '--help']!r})\nexcept "
        "SystemExit as end: assert end.code == 0"
    )
    assert loaded_after(call) == []


def test_the_help_of_all_commands_makes_no_classes_of_results():
    """They cost as much as a quarter of click, and no help needs them."""
    listed = "import sys; print('is_db_bootstrap.results' in sys.modules)"
    call = f"from is_db_bootstrap.cli import main\ntry: main(['--help'])\nfinally: {listed}"
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.endswith("False\n"), done.stdout + done.stderr


def test_showing_a_blueprint_imports_no_client_library():
    call = (
        "from is_db_bootstrap.cli import main\ntry: main(['blueprints', 'show', "
        "'novel_genesis'])\nexcept SystemExit as end: assert not end.code"
    )
    assert loaded_after(call) == []


def test_importing_the_package_imports_no_client_library():
    assert loaded_after("import is_db_bootstrap") == []


@pytest.mark.parametrize("blueprint", blueprint_names())
def test_importing_a_blueprint_imports_no_client_library(blueprint):
    assert loaded_after(f"from is_db_bootstrap.blueprints.{blueprint} import BLUEPRINT") == []


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("PostgreSQLBootstrapper", {"psycopg"}),
        ("Neo4jBootstrapper", {"neo4j"}),
        ("MilvusBootstrapper", {"pymilvus"}),
        ("RedisBootstrapper", {"redis"}),
    ],
)
def test_a_bootstrapper_imports_no_other_client(name, own):
    assert set(loaded_after(f"from is_db_bootstrap import {name}")) <= own


def test_the_page_of_the_architecture_names_each_ability_of_a_store():
    source = (ROOT / "src/is_db_bootstrap/engine/store.py").read_text(encoding="utf-8")
    abilities = re.findall(r"^class (Can\w+|GoesOn)\(", source, re.MULTILINE)
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [name for name in abilities if f"`{name}`" not in page] == []
    named = set(re.findall(r"`(Can[A-Z]\w+)`", page))
    assert named <= set(abilities)
