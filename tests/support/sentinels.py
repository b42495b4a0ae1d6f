"""A master of Redis, its replica and one Sentinel, all real, of Debian's version 7."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import redis

from is_db_bootstrap.errors import StoreUnavailable

PROGRAM = shutil.which("redis-server", path="/usr/bin")


def free_port():
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        if port < 55_000:  # The bus of a cluster listens 10,000 above.
            return port


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, StoreUnavailable):
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def client_at(port, **options):
    return redis.Redis(port=port, decode_responses=True, **options)


class Starter:
    """Starts servers in folders of their own, and ends them all."""

    def __init__(self, folder):
        self.folder = folder
        self.made = []

    def __call__(self, *arguments):
        home = self.folder / f"server-{len(self.made)}"
        home.mkdir(parents=True)
        command = [PROGRAM, *arguments, "--bind", "127.0.0.1", "--dir", str(home)]
        for _ in range(20):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=0.3)
            except subprocess.TimeoutExpired:
                self.made.append(process)
                return process
        raise AssertionError(f"{command} ends at once")  # another process keeps its port

    def close(self):
        for process in self.made:
            process.kill()
            process.wait()


class Watched:
    """A master, its replica and the Sentinel that watches them as `shop`. They have passwords."""

    def __init__(self, start):
        self.start = start
        self.ports = free_port(), free_port()
        self.sentinel = free_port()
        first, second = self.ports
        secret = ["--requirepass", "right", "--masterauth", "right", "--save", ""]
        secret += ["--repl-diskless-sync-delay", "0"]
        start("--port", str(first), *secret)
        start("--port", str(second), *secret, "--replicaof", "127.0.0.1", str(first))
        conf = start.folder / "sentinel.conf"
        conf.write_text(
            "requirepass watching\n"
            f"sentinel monitor shop 127.0.0.1 {first} 1\n"
            f"sentinel known-replica shop 127.0.0.1 {second}\n"
            "sentinel auth-pass shop right\n"
            "sentinel down-after-milliseconds shop 1000\n"
            "sentinel failover-timeout shop 2000\n"
        )
        start(str(conf), "--sentinel", "--port", str(self.sentinel))
        self.settle()

    @property
    def url(self):
        place = f"127.0.0.1:{self.sentinel}/shop/0"
        return f"redis+sentinel://:right@{place}?sentinel_password=watching"

    @property
    def master(self):
        """The port of the server that the Sentinel calls the master."""
        with client_at(self.sentinel, password="watching") as client:
            return client.sentinel_get_master_addr_by_name("shop")[1]

    @property
    def replica(self):
        return next(port for port in self.ports if port != self.master)

    def ask(self, port, *words):
        with client_at(port, password="right") as client:
            return client.execute_command(*words)

    def settle(self):
        """Wait until the master has a replica that follows it, and the Sentinel knows both."""

        def is_linked():
            with client_at(self.replica, password="right") as client:
                found = client.info("replication")
            return found["role"] == "slave" and found["master_link_status"] == "up"

        def knows_replica():
            with client_at(self.sentinel, password="watching") as client:
                found = client.sentinel_masters()["shop"]
            return found["num-slaves"] == 1 and found["flags"] == "master"

        until(is_linked, "the replica was not linked")
        until(knows_replica, "the Sentinel did not see the replica")

    def fail_over(self):
        """Let the Sentinel make the replica the master. The old master becomes its replica.

        A Sentinel does the latter up to ten seconds later, so it is done here.
        """
        old, new = self.master, self.replica

        def is_begun():
            with client_at(self.sentinel, password="watching") as client:
                client.execute_command("SENTINEL FAILOVER shop")
            return True

        until(is_begun, "the Sentinel began no fail-over")
        until(lambda: self.master == new, "there was no fail-over")
        until(lambda: self.ask(new, "ROLE")[0] == "master", "the replica was not promoted")
        self.ask(old, "REPLICAOF", "127.0.0.1", new)
