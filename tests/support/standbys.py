"""A primary of PostgreSQL and a standby of it, both real, of Debian's version 15."""

from __future__ import annotations

import shutil
import subprocess
import time

import psycopg

from is_db_bootstrap.local.process import as_user, environment, primary_group
from servers import PASSWORD, DebianPostgres, wait_until_up


class ReplicatedPostgres(DebianPostgres):
    """A server that standbys may follow. What it has committed reaches them at once."""

    def configure(self):
        super().configure()
        with (self.data / "pg_hba.conf").open("a", encoding="ascii") as file:
            file.write("host replication all 127.0.0.1/32 scram-sha-256\n")

    def command(self):
        return [*super().command(), "-csynchronous_commit=on", "-cwal_keep_size=64MB"]

    @property
    def address(self):
        """Host and port."""
        return f"{self.host}:{self.port}"

    def ask(self, query, database="postgres"):
        """The first value of a query."""
        with psycopg.connect(f"{self.url}/{database}", autocommit=True) as session:
            answer = session.execute(query)
            row = answer.fetchone() if answer.description else None
            return row[0] if row else None

    def follow(self, primary):
        """Make the data folder a copy of the primary's, which goes on following it."""
        self.home.mkdir(parents=True)
        owner = self.user()
        if owner:
            shutil.chown(self.home, owner, primary_group(owner))
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        command = [
            self.programs_folder / "pg_basebackup",
            f"--pgdata={self.data}",
            f"--host={primary.host}",
            f"--port={primary.port}",
            "--username=postgres",
            *options,
        ]
        for _ in range(3):
            shutil.rmtree(self.data, ignore_errors=True)
            done = subprocess.run(
                command,
                cwd=self.home,
                capture_output=True,
                text=True,
                check=False,
                env={**environment(), "PGPASSWORD": primary.password},
                **as_user(owner),
            )
            if done.returncode == 0:
                return
            # gRPC of an earlier test may end the child of a fork before it becomes the program.
        raise AssertionError((done.returncode, done.stderr))

    def promote(self):
        """Let a standby become a primary; it is one when this returns."""
        assert self.ask("SELECT pg_promote(true, 60)")

    def wait_for(self, primary):
        """Wait until a standby has applied all that the primary has written."""
        position = primary.ask("SELECT pg_current_wal_lsn()::text")
        query = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        deadline = time.monotonic() + 60
        while not self.ask(query):
            assert time.monotonic() < deadline, "the standby lags behind"
            time.sleep(0.02)


class Pair:
    """A primary and its standby. A test may end the first and promote the second."""

    def __init__(self, farm):
        self._farm = farm
        self._made = 0
        self.primary = self._new()
        self.primary.prepare()
        self._start(self.primary)
        self.standby = None

    def _new(self):
        self._made += 1
        home = self._farm.folder / f"pair-{id(self)}-{self._made}"
        return ReplicatedPostgres(home, version="15", durable=False, password=PASSWORD)

    def _start(self, server):
        server.start()
        wait_until_up(server)

    def renew(self):
        """See that there is a primary and a standby that follows it."""
        if self.standby is not None and self.standby.alive():
            if self.primary.alive() and self.standby.ask("SELECT pg_is_in_recovery()"):
                return
            self.primary.kill()
            shutil.rmtree(self.primary.home, ignore_errors=True)
            self.primary, self.standby = self.standby, None
        if not self.primary.alive():
            self._start(self.primary)
        self.standby = self._new()
        self.standby.follow(self.primary)
        self._start(self.standby)

    def cut_off(self):
        """Let the standby get nothing any more of what the primary writes."""
        self.standby.wait_for(self.primary)
        self.standby.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while self.primary.ask("SELECT count(*) FROM pg_stat_replication"):
            assert time.monotonic() < deadline, "the standby still follows"
            time.sleep(0.02)

    def fail_over(self):
        """End the primary as a crash would, and promote the standby."""
        self.primary.kill()
        self.standby.promote()

    def url(self, database, *, standby_first=True):
        """The address of both, as libpq writes it."""
        servers = [self.standby, self.primary] if standby_first else [self.primary, self.standby]
        login = self.primary.url.partition("//")[2].rpartition("@")[0]
        places = ",".join(each.address for each in servers)
        return f"postgresql://{login}@{places}/{database}"

    def close(self):
        for server in (self.primary, self.standby):
            if server is not None:
                server.kill()
                shutil.rmtree(server.home, ignore_errors=True)
