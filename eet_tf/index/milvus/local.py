"""milvus-lite in threads of this process, where there is no server of Milvus."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from concurrent import futures
from pathlib import Path

from eet_tf.index.milvus.server import Server, imported, missing_package

LOCAL_COLLECTION = "photos"
LOCAL_MESSAGE = 2**28  # bytes


class LocalServer(Server):
    """milvus-lite over a folder that nobody else uses.

    Its client reaches it by a socket in a folder of its own that only this user may enter, not by a port. There is no
    deadline: a search here takes as long as this machine needs.

    Args:
        folder: the database; made if it is missing.
        scratch: a folder to be removed when the server ends; None for none.
    """

    def __init__(self, folder: Path, scratch: Path | None = None):
        pymilvus, grpc = imported()
        MilvusServicer, MilvusLite = _imported_lite()
        from pymilvus.grpc_gen import milvus_pb2_grpc

        database = MilvusLite(os.fspath(folder))
        sizes = [(f"grpc.max_{way}_message_length", LOCAL_MESSAGE) for way in ("receive", "send")]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=sizes)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        # the system takes about 100 bytes as the name of a socket
        base = tempfile.gettempdir()
        place = tempfile.mkdtemp(prefix="eet_tf-", dir=base if len(os.fsencode(base)) < 80 else "/tmp")
        server.add_insecure_port(f"unix:{place}/socket")
        server.start()
        client = pymilvus.MilvusClient(uri=f"unix:{place}/socket")
        remove = [place] if scratch is None else [place, os.fspath(scratch)]
        self._finish = weakref.finalize(self, _close, client, server, database, remove)
        super().__init__(client, "milvus-lite", timeout=None)

    def close(self) -> None:
        """Ends it; it ends by itself when nothing refers to it."""
        self._finish()


def check_packages() -> None:
    """Refuses to go on where one is missing."""
    imported()
    _imported_lite()


def _imported_lite():
    try:
        from milvus_lite.adapter.grpc.servicer import MilvusServicer
        from milvus_lite.db import MilvusLite
    except ImportError as error:
        raise missing_package("milvus-lite") from error
    return MilvusServicer, MilvusLite


def _close(client, server, database, remove: list[str]) -> None:
    client.close()
    server.stop(grace=1).wait()
    with contextlib.suppress(RuntimeError):  # at the end of the interpreter no thread starts any more
        database.close()
    for folder in remove:
        shutil.rmtree(folder, ignore_errors=True)
