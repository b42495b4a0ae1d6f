"""The import rule of docs/architecture.md as code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from is_db_bootstrap import blueprints

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = SOURCE / "is_db_bootstrap"

#: From the bottom up: a module imports its own layer and those below.
LAYERS = [
    {"errors", "names", "results", "events"},
    {
        "address",
        "settings",
        "retry",
        "files",
        "private_files",
        "guests",
        "blueprint",
        "bootstrapper",
        "declaration_check",
        "tls",
    },
    {"orchestrator", "render", "stores", "blueprints", "observers"},
    {
        "app",
        "client_imports",
        "contract",
        "description",
        "fleet",
        "migrate",
        "revision",
        "scaffold",
    },
    {"local", "testing", "access"},
    {"cli", "__main__"},
]
PARTS = LAYERS[2]

#: Parts stand side by side. These look sideways, for the reason beside them.
SIDEWAYS = {
    "blueprints": "checks the folders of one's own blueprint by reading them as the stores do",
    "blueprints.helpdesk.database": "connects as the bootstrap does, with every form of address",
    "stores.postgres.scratch": "a command of its own, which is told the blueprint's name",
}

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


def imports(path):
    """Every absolute name that a module imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(part):
    return next((i for i, names in enumerate(LAYERS) if part in names), None)


MODULES = {
    name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    part = module.split(".")[0]
    assert layer(part) is not None, f"{part} has no layer; docs/architecture.md lists them"
    for name in imports(MODULES[module]):
        if not name.startswith("is_db_bootstrap."):
            continue
        other = name.split(".")[1]
        if layer(other) is None:  # a name of the package itself, such as __version__
            continue
        assert layer(other) <= layer(part), f"{module} imports {name}, which is above it"
        if part in PARTS and other in PARTS and other != part:
            assert module in SIDEWAYS, f"{module} imports {name}, which stands beside it"


@pytest.mark.parametrize("module", MODULES)
def test_a_client_library_is_imported_by_its_own_store_only(module):
    for name in imports(MODULES[module]):
        allowed = CLIENTS.get(name.split(".")[0])
        assert allowed is None or module.startswith(allowed), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_only_the_settings_and_the_edges_read_the_environment(module):
    if module.split(".")[0] in {"settings", "cli", "local", "testing"}:
        return
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    read = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and n.attr in {"environ", "getenv"}
        and isinstance(n.value, ast.Name)
        and n.value.id == "os"
    ]
    assert not read, f"{module}, line {read[0].lineno}"


def test_the_engine_names_no_store():
    text = "".join(
        p.read_text(encoding="utf-8")
        for name, p in MODULES.items()
        if name.startswith("orchestrator")
    ).lower()
    assert [s for s in ("postgres", "neo4j", "milvus", "redis") if s in text] == []


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
    ["revision"],
    ["selftest"],
    ["setup"],
    ["check"],
]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_imports_no_client_library(command):
    call = f"from is_db_bootstrap.cli import main\ntry: main({[*command, '--help']!r})\nexcept SystemExit as end: assert end.code == 0"
    assert loaded_after(call) == []


def test_showing_a_blueprint_imports_no_client_library():
    call = "from is_db_bootstrap.cli import main\ntry: main(['blueprints', 'show', 'novel_genesis'])\nexcept SystemExit as end: assert not end.code"
    assert loaded_after(call) == []


def test_importing_the_package_imports_no_client_library():
    assert loaded_after("import is_db_bootstrap") == []


@pytest.mark.parametrize("blueprint", blueprints.names())
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
