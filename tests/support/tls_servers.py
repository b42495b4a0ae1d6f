"""Real servers that speak TLS, ask for a client's certificate, and take no plain text."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.places import is_root
from is_db_bootstrap.local.postgres import PostgresServer
from servers import START_S, DebianRedis, FullMilvus

PASSWORD = "s3cret s3cret"


def _copied(server, certificates, names):
    """Copies of certificates and keys, in a folder that the user of a server may read."""
    folder = server.home / "tls"
    folder.mkdir(exist_ok=True)
    for name, source in names.items():
        shutil.copy(source, folder / name)
        (folder / name).chmod(0o600)
    if server.user() and is_root():
        for each in (folder, *folder.iterdir()):
            shutil.chown(each, server.user())
    return folder


def _files(server, certificates, certificate="server"):
    names = {
        "server.crt": certificates.pem(certificate),
        "server.key": certificates.key(certificate),
        "ca.crt": certificates.pem("ours"),
    }
    return _copied(server, certificates, names)


class _Tls:
    """What the classes below have in common: a set of certificates."""

    certificates = None

    @property
    def address(self):
        """The address by the name that the certificate bears."""
        return self.url.replace(self.host, "localhost")


class TlsPostgres(_Tls, PostgresServer):
    def configure(self):
        folder = _files(self, self.certificates)
        lines = ["hostssl all all all scram-sha-256 clientcert=verify-ca", "local all all trust"]
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        settings = {
            "ssl": "on",
            "ssl_cert_file": f"'{folder}/server.crt'",
            "ssl_key_file": f"'{folder}/server.key'",
            "ssl_ca_file": f"'{folder}/ca.crt'",
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.data / "postgresql.auto.conf").write_text(text)

    def ask(self):
        import psycopg

        psycopg.connect(
            f"{self.address}/postgres",
            sslmode="verify-full",
            sslrootcert=self.certificates.pem("ours"),
            sslcert=self.certificates.pem("client"),
            sslkey=self.certificates.key("client"),
        ).close()


class TlsRedis(_Tls, DebianRedis):
    @property
    def url(self):
        return super().url.replace("redis:", "rediss:")

    def configure(self):
        super().configure()
        folder = _files(self, self.certificates)
        file = self.home / "redis.conf"
        plain = f"port {self.port}\n"
        encrypted = (
            f"port 0\ntls-port {self.port}\n"
            f"tls-cert-file {folder}/server.crt\ntls-key-file {folder}/server.key\n"
            f"tls-ca-cert-file {folder}/ca.crt\ntls-auth-clients yes\n"
        )
        file.write_text(file.read_text().replace(plain, encrypted))

    def ask(self):
        import redis

        with redis.Redis.from_url(
            self.address,
            ssl_ca_certs=self.certificates.pem("ours"),
            ssl_certfile=self.certificates.pem("client"),
            ssl_keyfile=self.certificates.key("client"),
        ) as client:
            client.ping()


class TlsNeo4j(_Tls, Neo4jServer):
    def configure(self):
        super().configure()
        folder = _files(self, self.certificates)
        (folder / "trusted").mkdir(exist_ok=True)
        shutil.copy(self.certificates.pem("ours"), folder / "trusted")
        settings = {
            "server.bolt.tls_level": "REQUIRED",
            "dbms.ssl.policy.bolt.enabled": "true",
            "dbms.ssl.policy.bolt.base_directory": folder,
            "dbms.ssl.policy.bolt.private_key": "server.key",
            "dbms.ssl.policy.bolt.public_certificate": "server.crt",
            "dbms.ssl.policy.bolt.client_auth": "REQUIRE",
        }
        with (self.home / "conf" / "neo4j.conf").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def ask(self):
        import neo4j

        with neo4j.GraphDatabase.driver(
            f"bolt://localhost:{self.port}",
            auth=("neo4j", self.password),
            ssl_context=self.certificates.context(),
            encrypted=True,
            max_transaction_retry_time=0,
        ) as driver:
            driver.execute_query("RETURN 1")


class TlsMilvus(_Tls, FullMilvus):
    """`tlsMode` 2 asks for a client's certificate, 1 does not."""

    tls_mode = 2

    @property
    def url(self):
        return super().url.replace("http:", "https:")

    def command(self):
        folder = _files(self, self.certificates)
        return [
            *super().command(),
            f"common.security.tlsMode={self.tls_mode}",
            f"tls.serverPemPath={folder}/server.crt",
            f"tls.serverKeyPath={folder}/server.key",
            f"tls.caPemPath={folder}/ca.crt",
        ]

    def ask(self):
        from pymilvus import MilvusClient

        client = MilvusClient(
            self.address,
            secure=True,
            ca_pem_path=self.certificates.pem("ours"),
            client_pem_path=self.certificates.pem("client"),
            client_key_path=self.certificates.key("client"),
            timeout=10,
            dedicated=True,
        )
        client.list_collections()
        client.close()


KINDS = {"postgres": TlsPostgres, "redis": TlsRedis, "neo4j": TlsNeo4j, "milvus": TlsMilvus}


def start(store, home, certificates, **more):
    """A server that answers. Whether it does is asked by its own client, not by ours."""
    password = "" if store == "milvus" else PASSWORD
    server = KINDS[store](Path(home), durable=False, password=password)
    server.certificates = certificates
    for name, value in more.items():
        setattr(server, name, value)
    server.prepare()
    try:
        server.start()
        wait(server)
    except BaseException:
        server.kill()
        raise
    return server


def wait(server):
    deadline = time.monotonic() + START_S
    while True:
        try:
            return server.ask()
        except Exception:
            if not server.alive():
                raise server.failed("ended at once") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
