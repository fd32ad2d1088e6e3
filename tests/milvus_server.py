"""A real Milvus of one machine, the package `milvus`, for the tests: started, killed, frozen and started again.

It listens on every address of the machine and on fixed ports. So it runs in a network of its own (a Linux network
namespace), and one port of 127.0.0.1 is passed on to it; any number of servers can run beside others of this machine.

    python tests/milvus_server.py FOLDER PORT      runs one until it is ended, with Milvus's own settings
"""

import asyncio
import atexit
import contextlib
import ctypes
import fcntl
import functools
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

PORT, HEALTH = 19530, "http://127.0.0.1:9091/healthz"
_CLONE_NEWUSER, _CLONE_NEWNET, _PR_SET_PDEATHSIG = 0x10000000, 0x40000000, 1
# so that tests need not wait. What is loaded is looked at ten times a second, not once; strong reads wait for a tick
# that comes twenty times a second, not five
_QUICK = {
    "queryCoord.checkInterval": 100,
    "queryCoord.distPullInterval": 100,
    "queryCoord.checkHandoffInterval": 500,
    "proxy.timeTickInterval": 50,
    "common.session.ttl": 12,  # seconds after which what a killed server kept for itself is free again
}
_READY = "ready"


class MilvusServer:
    """A server over a folder, which keeps its rows when it is killed.

    Args:
        folder: where its rows are; made if it is missing.
        with_users: whether it asks for a token; that of the first user is `root:Milvus`.

    Attributes:
        uri: its address, the same after it was killed and started again.
    """

    def __init__(self, folder, with_users=False):
        self._folder, self._with_users = pathlib.Path(folder), with_users
        self._folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process, self._pid = None, 0

    def start(self):
        """Returns when it answers; raises `RuntimeError` with the end of its log if it does not."""
        _write_files(self._folder, {"authorization_enabled": self._with_users, **_QUICK})
        command = [sys.executable, __file__, os.fspath(self._folder), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        words = self._process.stdout.readline().split()
        if words[:1] != [_READY]:
            self.kill()
            raise RuntimeError(f"Milvus did not start: {' '.join(words)}\n{self.log()[-2000:]}")
        self._pid = int(words[1])
        return self

    def kill(self):
        """Ends it at once, as a power cut does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    @contextlib.contextmanager
    def frozen(self):
        """Connections stay open and nothing is answered."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def log(self):
        """What it has printed."""
        path = self._folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.kill()


@functools.cache
def why_not():
    """Why no server can be started here; None if one can."""
    if importlib.util.find_spec("pymilvus") is None:
        return "the Milvus client does not go with TensorFlow 2.15"
    found = importlib.util.find_spec("milvus")
    if found is None or found.origin is None:  # tests/index/milvus is a folder of that name, and no package
        return "the real server is the package milvus==2.3.5: make test-milvus installs it, on Linux x86-64"
    tried = subprocess.run([sys.executable, __file__, "--try"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"the server needs a network of its own: {tried.stderr.strip()[-200:]}"


@functools.cache
def shared_server():
    """One server for all tests of this process that do not harm it; skips the test where none can be started."""
    import pytest

    if why_not():
        pytest.skip(why_not())
    folder = tempfile.mkdtemp(prefix="eet_tf-milvus-server-")
    server = MilvusServer(folder).start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return server


def _write_files(folder, settings):
    """Its programs and its settings, which are its own but for these."""
    import milvus

    milvus._initialize_data_files(os.fspath(folder))
    config = milvus.MilvusServerConfig(data_dir=os.fspath(folder))
    config.resolve_storage()
    for name, value in settings.items():
        config.set(name, value)
    config.write_config()
    shutil.rmtree(folder / "run", ignore_errors=True)


def _enter_own_network():
    """From here on this process and those that it starts see nothing but a loopback of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"no network namespace: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, 0x8913, request))[1]
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # up


def _end_with_parent():
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _pass_on(reader, writer):
    """All that comes from one side goes to the other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(2**18):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


async def _forward(listening):
    async def connected(reader, writer):
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))

    async with await asyncio.start_server(connected, sock=listening) as server:
        await server.serve_forever()


def run(folder, port):
    """Runs a server whose files are in `folder`, and says so when it answers; ends when it ends."""
    _end_with_parent()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))  # in the network of this machine, unlike all that comes after
    _enter_own_network()
    environment = {**os.environ, "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": "9091", "LD_LIBRARY_PATH": "bin"}
    environment["MILVUS_RUN_DIR"] = os.path.join(folder, "run")
    with open(os.path.join(folder, "server.log"), "a") as log:
        command = [os.path.join(folder, "bin", "milvus"), "run", "standalone"]
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, preexec_fn=_end_with_parent
        )
    end = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if b"OK" in urllib.request.urlopen(HEALTH, timeout=2).read():
                listening.listen()  # before that connections are refused, and until then nobody could pass them on
                print(_READY, server.pid, flush=True)
                asyncio.run(_forward(listening))
        time.sleep(0.1)
    print(f"it ended with {server.poll()}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--try"]:
        _enter_own_network()
    else:
        if not os.path.exists(os.path.join(sys.argv[1], "configs", "milvus.yaml")):
            os.makedirs(sys.argv[1], exist_ok=True)
            _write_files(pathlib.Path(sys.argv[1]).absolute(), {})
        run(os.path.abspath(sys.argv[1]), int(sys.argv[2]))
