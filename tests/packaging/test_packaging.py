"""The wheel, installed where the repository is not."""

import re
import shlex
import sys
import tarfile
import venv
import zipfile
from functools import partial
from pathlib import Path

import pytest

from wheel import ROOT, build, install, run

CLIENTS = ("psycopg", "sqlalchemy", "alembic", "neo4j", "pymilvus", "redis")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def names(built):
    return set(zipfile.ZipFile(built[0]).namelist())


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    return install(built[0], tmp_path_factory.mktemp("elsewhere")) / "python"


def test_everything_that_a_run_needs_is_in_the_wheel(names):
    for folder in ("migrations", "cypher"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"is_db_bootstrap/_files/{path.relative_to(ROOT)}" in names
    source = ROOT / "src" / "is_db_bootstrap"
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"is_db_bootstrap/{path.relative_to(source)}" in names
    assert {
        "is_db_bootstrap/py.typed",
        "is_db_bootstrap/_files/migrations/novel_genesis/catalogue.json",
    } <= names


def test_nothing_else_is_in_the_wheel(names):
    tops = {name.split("/")[0] for name in names}
    assert tops == {"is_db_bootstrap", "is_db_bootstrap-0.1.0.dist-info"}
    assert [n for n in names if n.endswith((".pyc", ".log"))] == []


def test_the_wheel_carries_its_licence(names):
    assert any(n.endswith("dist-info/licenses/LICENSE") for n in names)


def test_a_wheel_from_the_sdist_is_the_same(built, names, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        tmp_path / "again",
        cwd=source,
    )
    [wheel] = (tmp_path / "again").glob("*.whl")
    assert set(zipfile.ZipFile(wheel).namelist()) == names


def test_wheel_and_sdist_are_built_the_same_twice(built, tmp_path):
    again = build(tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_installed_package_is_not_this_repository(installed, tmp_path):
    where = run(
        installed,
        "-c",
        "import is_db_bootstrap as p, sys; print(p.__file__, *sys.path, sep='\\n')",
        cwd=tmp_path,
    ).stdout
    assert str(installed.parent.parent) in where.splitlines()[0]
    assert str(ROOT / "src") not in where.splitlines()


def test_the_installed_command_finds_its_files(installed, tmp_path):
    ini = run(installed.parent / "is-db-bootstrap", "migrate", "ini", cwd=tmp_path).stdout.strip()
    assert Path(ini).is_relative_to(installed.parent.parent)
    assert (
        "novel_genesis"
        in run(installed, "-m", "is_db_bootstrap", "blueprints", cwd=tmp_path).stdout
    )


def test_the_stock_alembic_reads_the_installed_revisions(installed, tmp_path):
    ini = run(installed, "-m", "is_db_bootstrap", "migrate", "ini", cwd=tmp_path).stdout.strip()
    history = run(
        installed, "-m", "alembic.config", "-c", ini, "-n", "novel_genesis", "history", cwd=tmp_path
    ).stdout
    assert "ng_0003 -> ng_0004 (head)" in history


@pytest.mark.postgres
def test_the_stock_alembic_works_on_a_database_of_the_installed_command(
    installed, tmp_path, postgres_url
):
    address = {"POSTGRES_URL": postgres_url}
    run(installed, "-m", "is_db_bootstrap", "--only", "postgres", cwd=tmp_path, **address)
    ini = run(installed, "-m", "is_db_bootstrap", "migrate", "ini", cwd=tmp_path).stdout.strip()
    alembic = [installed, "-m", "alembic.config", "-c", ini, "-n", "novel_genesis"]
    assert "ng_0004 (head)" in run(*alembic, "current", cwd=tmp_path, **address).stdout
    run(*alembic, "check", cwd=tmp_path, **address)
    run(*alembic, "downgrade", "-1", cwd=tmp_path, **address)
    assert "ng_0003" in run(*alembic, "current", cwd=tmp_path, **address).stdout


def test_a_type_checker_sees_the_types(installed, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from is_db_bootstrap import BootstrapResult\ndef code(result: BootstrapResult) -> "
        "None:\n    reveal_type(result.exit_code)\n"
    )
    said = run(
        sys.executable, "-m", "mypy", "--python-executable", installed, "mine.py", cwd=tmp_path
    ).stdout
    assert 'Revealed type is "int"' in said or 'Revealed type is "builtins.int"' in said


def test_pyright_sees_the_types(installed, tmp_path):
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", installed]
    if run(*pyright, "--version", cwd=tmp_path, check=False).returncode:
        pytest.skip("pyright cannot be fetched from npm here")
    (tmp_path / "mine.py").write_text(
        "from is_db_bootstrap import BootstrapResult\nfrom is_db_bootstrap.testing import "
        "isolated_stores\n"
        "def code(result: BootstrapResult) -> None:\n    reveal_type(result.exit_code)\n"
        "with isolated_stores('novel_genesis') as stores:\n    reveal_type(stores.redis)\n"
    )
    said = run(*pyright, "mine.py", cwd=tmp_path).stdout
    assert 'Type of "result.exit_code" is "int"' in said
    assert 'Type of "stores.redis" is "Redis"' in said


@pytest.fixture(scope="module")
def postgres_only(built, tmp_path_factory):
    """A fresh environment with `is-db-bootstrap[postgres]` at the pinned versions and nothing else."""
    folder = tmp_path_factory.mktemp("postgres-only")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pins = "".join(
        line
        for line in (ROOT / "requirements/run.txt")
        .read_text()
        .replace("\\\n", "")
        .splitlines(keepends=True)
    )
    (folder / "pins.txt").write_text(
        "\n".join(line.split(" --hash")[0].strip() for line in pins.splitlines())
    )
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        folder / "pins.txt",
        f"is-db-bootstrap[postgres] @ {built[0].as_uri()}",
        cwd=folder,
    )
    return python


def test_one_extra_works_without_the_other_clients(postgres_only, tmp_path):
    there = run(
        postgres_only,
        "-c",
        f"import importlib.util as u; print(*[n for n in {CLIENTS!r} if u.find_spec(n)])",
        cwd=tmp_path,
    ).stdout.split()
    assert there == ["psycopg", "sqlalchemy", "alembic"]
    run(
        postgres_only,
        "-c",
        "from is_db_bootstrap import BootstrapOrchestrator, PostgreSQLBootstrapper",
        cwd=tmp_path,
    )
    assert (
        "novel_genesis"
        in run(postgres_only, "-m", "is_db_bootstrap", "blueprints", cwd=tmp_path).stdout
    )


def test_a_store_whose_client_is_not_installed_is_exit_2_and_names_the_extra(
    postgres_only, tmp_path
):
    done = run(
        postgres_only,
        "-m",
        "is_db_bootstrap",
        "--only",
        "redis",
        "--redis-url",
        "redis://localhost:1",
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "is-db-bootstrap[redis]" in done.stderr


@pytest.mark.postgres
def test_one_extra_brings_its_store_to_the_blueprint(postgres_only, tmp_path, postgres_url):
    for outcome in ("changed", "unchanged"):
        done = run(
            postgres_only,
            "-m",
            "is_db_bootstrap",
            "--only",
            "postgres",
            cwd=tmp_path,
            POSTGRES_URL=postgres_url,
        )
        assert f"apply {outcome}" in done.stdout


def page_commands(page):
    """Each command of a page's examples, without its remark, and the remark."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            command, _, remark = line.partition("#")
            yield shlex.split(command), remark.strip()


@pytest.mark.postgres
def test_the_examples_of_the_migrate_page_run_where_nothing_else_is_installed(
    postgres_only, tmp_path, postgres_url
):
    """From the first to the last, beginning where `apply` has left the database."""
    installed = partial(run, cwd=tmp_path, check=False, POSTGRES_URL=postgres_url)
    there = ("--only", "postgres", "--blueprint", "context_service")
    assert installed(postgres_only, "-m", "is_db_bootstrap", *there).returncode == 0
    ends = {}
    for (program, *words), remark in page_commands("how-to/migrate.md"):
        if "--cypher" in words:
            continue  # Neo4j's client is not installed; test_page_examples.py types these
        answer = ["--yes"] if "stamp" in words else []  # at a terminal one is asked
        done = installed(postgres_only.parent / program, *words, *answer)
        call = " ".join(words)
        ends[call] = done.returncode
        if words[:2] == ["migrate", "current"]:
            assert done.stdout.strip() == remark
        # Nothing is half done here, so a retry is refused.
        expected = {2} if "--retry" in words else {0, 3}
        assert done.returncode in expected, f"{call}: {done.stderr}"
    drifted = [call for call, code in ends.items() if code == 3]
    # The record was stamped after `downgrade base`, so `verify` says that it is not true.
    assert drifted == ["verify --blueprint context_service"]
    assert len(ends) >= 12
