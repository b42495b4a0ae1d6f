"""A company's proxy on the way to Milvus, whose client is the only one that uses one unasked."""

import asyncio
import contextlib
import json
import socket
import threading

import pytest
from requests.utils import get_environ_proxies, select_proxy

from commands import run_here
from is_db_bootstrap.settings.proxy import web_proxy

APPLY = ("apply", "-b", "novel_genesis", "--only", "milvus", "-o", "json")


class ConnectProxy:
    """An HTTP proxy that knows CONNECT. `answer` is what it says in the place of a connection."""

    def __init__(self, answer=b""):
        self.asked = []
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split()[1].decode()
            self.asked.append(target)
            if self._answer:
                writer.write(self._answer)
                await writer.drain()
                writer.close()
                return
            host, _, port = target.rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    @staticmethod
    async def _pass(reader, writer):
        with contextlib.suppress(OSError):
            while part := await reader.read(65536):
                writer.write(part)
                await writer.drain()
        writer.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@pytest.fixture
def make_proxy():
    made = []

    def make(answer=b""):
        made.append(ConnectProxy(answer))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def environment(url, proxy, **more):
    return {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "MILVUS_URL": url} | proxy | more


@pytest.mark.milvus
@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_on_the_way_is_named(variable, make_proxy, milvus_url, tmp_path):
    proxy = make_proxy()
    address = f"http://127.0.0.1:{proxy.port}"
    args = ("plan", *APPLY[1:])
    code, _, err = run_here(args, tmp_path, environment(milvus_url, {variable: address}))
    assert code == 0, err
    assert proxy.asked
    assert f"goes through the proxy {address} ({variable})" in err
    assert "add 127.0.0.1 to no_proxy" in err


@pytest.mark.milvus
def test_the_way_around_a_proxy_is_the_one_that_is_told(make_proxy, milvus_url, tmp_path):
    proxy = make_proxy()
    environ = environment(
        milvus_url, {"http_proxy": f"http://127.0.0.1:{proxy.port}"}, no_proxy="127.0.0.1"
    )
    code, _, err = run_here(("plan", *APPLY[1:]), tmp_path, environ)
    assert (code, proxy.asked, "proxy" in err) == (0, [], False)


@pytest.mark.milvus
def test_a_proxy_that_is_dead_is_named_in_the_failure(milvus_url, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environ = environment(milvus_url, {"http_proxy": address})
        code, out, _ = run_here((*APPLY, "--timeout", "0"), tmp_path, environ)
    error = json.loads(out)["stores"][0]["error"]
    assert code == 4
    assert f"The connection goes through the proxy {address} (http_proxy)." in error["message"]
    assert error["hint"].startswith("If no proxy belongs in between, add 127.0.0.1 to no_proxy.")


@pytest.mark.milvus
@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
def test_a_proxy_that_refuses_is_named_in_the_failure(status, make_proxy, milvus_url, tmp_path):
    proxy = make_proxy(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    environ = environment(milvus_url, {"https_proxy": f"http://u:hunter22@127.0.0.1:{proxy.port}"})
    code, out, err = run_here((*APPLY, "--timeout", "0"), tmp_path, environ)
    assert (code, bool(proxy.asked)) == (4, True)
    assert "(https_proxy)" in json.loads(out)["stores"][0]["error"]["message"]
    assert "hunter22" not in out + err


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"http_proxy": "http://u:hunter22@p:1"}, "the proxy http://p:1 (http_proxy)"),
        ({"HTTP_PROXY": "http://p:1"}, "the proxy http://p:1 (HTTP_PROXY)"),
        ({"ALL_PROXY": "socks5://p:1"}, "the proxy socks5://p:1 (ALL_PROXY)"),
        ({"https_proxy": "http://p:1"}, "None"),
        ({"http_proxy": "http://p:1", "no_proxy": "repo.example"}, "None"),
        ({"http_proxy": "http://p:1", "NO_PROXY": "repo.example"}, "None"),
    ],
)
def test_the_proxy_of_a_download_is_found_as_requests_finds_it(environ, named, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert str(web_proxy("http://repo.example/maven")) == named
    found = select_proxy("http://repo.example/maven", get_environ_proxies("http://repo.example/"))
    assert bool(found) == (named != "None")
