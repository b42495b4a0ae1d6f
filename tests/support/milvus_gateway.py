"""A way to a Milvus that does not know some of its calls, as gateways and older releases do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

_ANSWER_S = 60


def privilege_of(call):
    """The privilege that a call asks for, as Milvus's protocol has it. Empty: none."""
    method = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name[call]
    options = method.input_type.GetOptions()
    if not options.HasExtension(common_pb2.privilege_ext_obj):
        return ""
    needed = options.Extensions[common_pb2.privilege_ext_obj].object_privilege
    return common_pb2.ObjectPrivilege.Name(needed)


class _Gateway(grpc.GenericRpcHandler):
    def __init__(self, channel, unknown, *, swallows, denies, rewrites, sent):
        self._channel = channel
        self._unknown = unknown
        self._swallows = swallows
        self._denies = denies
        self._rewrites = rewrites
        self._sent = sent

    def service(self, details):
        def answer(request, context):
            name = details.method.rpartition("/")[2]
            self._sent.append(name)
            if name in self._unknown:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {name}")
            if name in self._denies:
                text = f"{privilege_of(name)}: permission deny to weak"
                context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
            if name in self._swallows:
                return b""  # a Status that tells of no error
            call = self._channel.unary_unary(details.method)
            metadata = [pair for pair in context.invocation_metadata() if pair[0] != "user-agent"]
            told = call(request, metadata=metadata, timeout=_ANSWER_S)
            return self._rewrites[name](told) if name in self._rewrites else told

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def gateway(url, *unknown, swallows=(), denies=(), rewrites=None, sent=None):
    """The address of a way to `url` that refuses the calls named `unknown`.

    It says of those named in `swallows` that they succeeded, and makes none of them.
    Those named in `denies` it refuses as a server does whose user lacks the privilege.
    `rewrites` has by the name of a call what makes another answer, as bytes, of the server's.
    The list `sent` gets the name of each call.
    """
    sent = [] if sent is None else sent
    with grpc.insecure_channel(urlsplit(url).netloc) as channel:
        server = grpc.server(
            ThreadPoolExecutor(8),
            handlers=(
                _Gateway(
                    channel,
                    unknown,
                    swallows=swallows,
                    denies=denies,
                    rewrites=rewrites or {},
                    sent=sent,
                ),
            ),
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
