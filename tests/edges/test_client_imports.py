"""pandas, pyarrow and requests: kept out of the clients while the command imports them, and real
for everybody who uses them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from is_db_bootstrap import client_imports
from is_db_bootstrap.stores.kinds import KINDS
from servers import milvus_client

CLIENTS = """
from is_db_bootstrap import client_imports
client_imports.keep_out()
def import_clients():
    for store in ("neo4j", "milvus"):
        client_imports.import_module(f"is_db_bootstrap.stores.{store}.bootstrapper")
"""
#: Real modules have a file and a version, and compute.
REAL = """
import sys
def is_real():
    import numpy, pandas, pyarrow, pyarrow.compute
    assert pandas.__version__ and "site-packages" in pandas.__file__
    assert pandas.DataFrame({"a": numpy.arange(3)}).a.sum() == 3
    assert pyarrow.compute.sum(pyarrow.array([1, 2])).as_py() == 3
    assert pandas is sys.modules["pandas"]
"""


def python(code, *, folder=None, **environ):
    """What a fresh interpreter prints when it runs `code`."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_clients_are_imported_without_pandas_and_leave_no_proxy_in_sys_modules():
    loaded = python(
        CLIENTS + "import_clients()\nimport sys\nprint(*{n.partition('.')[0] for n in sys.modules})"
    ).split()
    assert {"neo4j", "pymilvus"} <= set(loaded)
    assert not {"pandas", "pyarrow", "requests"} & set(loaded)


@pytest.mark.parametrize(
    "order", ["import_clients(); is_real()", "is_real(); import_clients(); is_real()"]
)
def test_pandas_is_real_before_and_after_the_clients_are_imported(order):
    python(CLIENTS + REAL + order)


def test_pandas_is_real_for_threads_that_import_it_meanwhile():
    python(
        CLIENTS + REAL + "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    ran = [pool.submit(call) for call in (import_clients, is_real, import_clients, "
        "is_real)]\n"
        "[each.result() for each in ran]\n"
        "import builtins\nassert builtins.__import__ is client_imports._import\n"
        "import pymilvus.orm.schema as kept\nassert kept.pd.DataFrame is "
        "sys.modules['pandas'].DataFrame"
    )


def test_what_the_clients_keep_forwards_and_becomes_the_real_thing():
    python(
        CLIENTS + "import_clients()\n"
        "import sys, pymilvus.orm.schema as milvus, neo4j._codec._types as bolt, neo4j.vector "
        "as vector\n"
        "assert not isinstance([1], bolt.PD_SEQUENCE_TYPES) and not "
        "milvus.is_valid_insert_data(1)\n"
        "assert 'pandas' not in sys.modules\n"
        "assert milvus.is_scalar(1) and not milvus.is_scalar([1])\n"  # the first use
        "import pandas, pyarrow\n"
        "assert milvus.pd is pandas and milvus.is_scalar is pandas.api.types.is_scalar\n"
        "assert bolt.NONE_VALUES == (None, pandas.NA, pandas.NaT) or bolt.NONE_VALUES[1] is "
        "pandas.NA\n"
        "assert isinstance(pandas.Series([1]), bolt.PD_SEQUENCE_TYPES) and "
        "milvus.is_valid_insert_data(pandas.DataFrame())\n"
        "assert vector.Vector(pyarrow.array([1, 2])).to_native() == [1, 2]"
    )


def test_a_global_endpoint_that_refuses_is_the_clients_own_error():
    """pymilvus catches errors of requests, which it has not imported before."""
    python(
        CLIENTS + "import_clients()\n"
        "import pymilvus.client.global_topology as topology\n"
        "topology.MAX_RETRIES = 1\n"
        "try:\n    topology.fetch_topology('http://127.0.0.1:1', 'token')\n"
        "except topology.MilvusException as exc:\n    assert 'refused' in str(exc), exc\n"
        "else:\n    raise SystemExit('nobody refused')\n"
        "import requests\nassert topology.requests is requests"
    )


def test_the_garbage_collector_is_as_it_was_after_the_clients_are_imported():
    python(
        CLIENTS + "import gc\n"
        "gc.disable()\n"
        "client_imports.import_module('is_db_bootstrap.stores.redis.bootstrapper')\n"
        "assert not gc.isenabled() and gc.get_freeze_count() == 0\n"
        "gc.enable()\n"
        "import_clients()\n"
        "assert gc.isenabled()\n"
        "frozen = gc.get_freeze_count()\n"
        "kept = [[] for _ in range(1000)]\n"
        "import_clients()\n"  # there already, so nothing more is frozen
        "assert gc.get_freeze_count() == frozen > 1000"
    )


@pytest.mark.neo4j
def test_a_driver_that_was_imported_without_pandas_takes_its_values(neo4j_url, farm):
    server = farm.shared("neo4j")
    told = python(
        CLIENTS + "import_clients()\nimport neo4j, pandas as pd\n"
        f"with neo4j.GraphDatabase.driver('bolt://{server.host}:{server.port}', "
        f"auth=('neo4j', {server.password!r})) as d:\n"
        "    values = {'na': pd.NA, 'nat': pd.NaT, 'row': pd.Series([1, 2]), 'at': "
        "pd.Timestamp('2026-01-02T00:00Z')}\n"
        "    print(d.execute_query('RETURN $na, $nat, $row, $at.year', values).records[0].values())"
    )
    assert told == "[None, None, [1, 2], 2026]\n"


def without(tmp_path, *packages):
    """A folder of links to everything that is installed here, but for some packages."""
    folder = tmp_path / "installed"
    folder.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for each in Path(place).iterdir():
            if not each.name.startswith(packages) and each.suffix != ".pth":
                (folder / each.name).symlink_to(each)
    return folder


def test_without_pandas_the_clients_do_what_they_do_without_us(tmp_path):
    """neo4j works and has none, pymilvus needs it, and the command says which package is missing."""
    installed = without(tmp_path, "pandas", "pyarrow")
    source = str(Path(__file__).parents[2] / "src")
    code = (
        f"import sys; sys.path[:0] = [{str(installed)!r}, {source!r}]\n"
        + CLIENTS
        + "from is_db_bootstrap import app, errors\n"
        "from is_db_bootstrap.blueprint import Blueprint\nfrom is_db_bootstrap.settings "
        "import Settings\n"
        "client_imports.import_module('neo4j')\nfrom neo4j._optional_deps import pd, "
        "pa\nassert pd is None and pa is None\n"
        "blueprint = Blueprint('b', ''); settings = Settings.load(blueprint, "
        "environ={'MILVUS_URL': 'http://127.0.0.1:1'})\n"
        "try:\n    app.bootstrapper('milvus', settings.need('milvus'), blueprint, settings)\n"
        "except errors.ConfigurationError as exc:\n    print(exc)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "No module named 'pandas'" in done.stdout, done.stderr


BLUEPRINT = """
import os
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
{top}
def configure(blueprint, values):
    import pandas, numpy
    assert pandas.DataFrame({{"a": numpy.ones(2)}}).a.sum() == 2
    return blueprint
BLUEPRINT = Blueprint("tables", "With pandas.", configure={configure}, collections=(Collection("tables_v1", (
    Field("id", "INT64", primary=True), Field("x", "FLOAT", default=0.1), Field("v", "FLOAT_VECTOR", dim=4)),
    (Index("v", "FLAT", "L2"),), alias="tables"),))
"""
REVISION = '''"""Rows that pandas makes."""
from alembic import op
import pandas as pd, numpy as np, pyarrow as pa
revision = "r1"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE sums (n int)")
    total = int(pd.DataFrame({"a": np.arange(4)}).a.sum()) + pa.array([1, 2])[1].as_py()
    op.execute(f"INSERT INTO sums VALUES ({total})")
def downgrade():
    op.execute("DROP TABLE sums")
'''
COMMAND = """
import sys
from is_db_bootstrap.cli import main
try:
    main(["apply", "-b", "own", "-q"])
except SystemExit as end:
    print(end.code, "pandas" in sys.modules)
"""


def own(tmp_path, *, top="", configure="None", revision=False):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "blueprint.py").write_text(BLUEPRINT.format(top=top, configure=configure))
    if revision:
        (folder / "migrations").mkdir()
        (folder / "migrations" / "r1.py").write_text(REVISION)
    return tmp_path


@pytest.mark.milvus
def test_a_run_with_nothing_to_do_imports_no_pandas(tmp_path, milvus_url):
    folder = own(tmp_path)
    assert python(COMMAND, folder=folder, MILVUS_URL=milvus_url) == "0 False\n"
    assert python(COMMAND, folder=folder, MILVUS_URL=milvus_url) == "0 False\n"


@pytest.mark.milvus
@pytest.mark.parametrize(
    "own_code", [{"top": "import pandas, pyarrow\npandas.DataFrame()"}, {"configure": "configure"}]
)
def test_a_blueprint_that_uses_pandas_gets_the_real_one(tmp_path, milvus_url, own_code):
    folder = own(tmp_path, **own_code)
    for _ in range(2):
        assert python(COMMAND, folder=folder, MILVUS_URL=milvus_url) == "0 True\n"


@pytest.mark.milvus
@pytest.mark.postgres
def test_a_revision_that_uses_pandas_gets_the_real_one(tmp_path, milvus_url, postgres_url):
    import psycopg

    folder = own(tmp_path, revision=True)
    assert (
        python(COMMAND, folder=folder, MILVUS_URL=milvus_url, POSTGRES_URL=postgres_url)
        == "0 True\n"
    )
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT n FROM sums").fetchall() == [(8,)]
    client = milvus_client(milvus_url)
    assert client.list_collections() == ["tables_v1"]
    client.close()


#: A package with a circle, which only its own order of imports can enter. Python gives a thread that
#: asks for a part meanwhile another order.
CIRCLE = {
    "__init__": "import time\ntime.sleep(0.3)\nfrom circle.whole import whole\n",
    "whole": "whole = 1\nfrom circle.part import part\n",
    "part": "from circle.whole import whole\npart = whole\n",
}
IMPORTED_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from is_db_bootstrap.client_imports import import_module
sys.setswitchinterval(1e-5)
names = sys.argv[1:]
with ThreadPoolExecutor(len(names)) as pool:
    asked = [pool.submit(import_module, name) for name in names]
print(*(each.exception() or each.result().__name__ for each in asked))
"""


@pytest.mark.parametrize(
    "names", [("circle", "circle.part"), ("pandas", "pandas.api.types")], ids=["circle", "pandas"]
)
def test_threads_that_enter_a_circle_of_modules_at_two_places_get_both(tmp_path, names):
    package = tmp_path / "circle"
    package.mkdir()
    for name, text in CIRCLE.items():
        (package / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_AT_ONCE, *names],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.split() == list(names), done.stdout + done.stderr


def test_pytest_rewrites_none_of_our_modules_that_threads_may_import():
    for kind in KINDS.values():
        client_imports.import_module(kind.module_name("selftest"))
    # The modules of kinds are imported with the plugin, before any thread begins.
    loaders = {
        name: type(module.__loader__)
        for name, module in sys.modules.items()
        for kind in KINDS.values()
        if name.startswith(kind.module_name("")) and name != kind.module_name("kind")
    }
    assert len(loaders) > 4 * len(KINDS)
    assert {name for name, found in loaders.items() if found is not SourceFileLoader} == set()
