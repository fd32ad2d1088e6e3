"""The client against a server that is slow, busy, away or fussy, over gRPC (with the real protos) and over REST."""

import concurrent.futures
import contextlib
import io
import re
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eet_tf.client import EmbeddingClient, ServingError
from eet_tf.client.retries import Retries, TransientError
from eet_tf.client.slots import Slots

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed, the extra [serving]")
import grpc  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

from tests.serving.model_server import ModelServer  # noqa: E402
from tests.serving.served_models import DIM, FINGERPRINT, K, PlainModel, expected_embedding  # noqa: E402

PHOTOS = [b"photo-%02d" % number * (1 + number % 5) for number in range(23)]


@pytest.fixture(params=["grpc", "rest"])
def protocol(request):
    """`grpc` or `rest`."""
    return request.param


@pytest.fixture
def serve():
    """A function that starts a server of version 7 of a model."""
    with contextlib.ExitStack() as running:

        def serve(model=None, failures=(), delay=0.0, **options):
            server = running.enter_context(ModelServer({"embedder": {7: model or PlainModel()}}, **options))
            server.failures, server.delay = list(failures), delay
            return server

        yield serve


@pytest.fixture
def connect(protocol):
    """A function from a server to a client of it."""
    with contextlib.ExitStack() as opened:
        yield lambda server, **options: opened.enter_context(EmbeddingClient(target(server, protocol), **options))


def target(server, protocol):
    return server.grpc_address if protocol == "grpc" else f"http://{server.rest_address}"


def wait_until(condition):
    """Waits for what will come."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def photos_of(request):
    """The photos that a request holds."""
    ((_, proto),) = request.inputs.items()
    return tf.make_ndarray(proto).tolist()


def sizes(server):
    """How many photos each request had."""
    return [len(photos_of(request)) for request in server.requests]


def check(found, photos):
    """Every photo has its own embedding, in its place."""
    embeddings, ok = found
    assert (embeddings.dtype, ok.dtype) == (np.float32, np.bool_)
    np.testing.assert_allclose(embeddings, np.stack([expected_embedding(photo) for photo in photos]), atol=1e-6)
    assert ok.tolist() == [not photo.startswith(b"bad") for photo in photos]


# Batches and order


@pytest.mark.parametrize("number", [1, 4, 5, 23])
def test_photos_come_back_in_order_whatever_the_batches(connect, serve, number):
    server = serve()
    check(connect(server, batch_size=4).embed(PHOTOS[:number]), PHOTOS[:number])
    assert sorted(sizes(server), reverse=True) == [4] * (number // 4) + [number % 4] * (number % 4 > 0)


def test_order_is_kept_when_later_answers_come_first(connect, serve):
    """The first request fails once and so is answered last."""
    server = serve(failures=["UNAVAILABLE"])
    check(connect(server, batch_size=3).embed(PHOTOS), PHOTOS)


def test_several_requests_are_on_their_way_at_once(connect, serve):
    """None of four is answered before all four are there."""
    server = serve()
    server.gate = threading.Barrier(4)
    check(connect(server, batch_size=2, max_in_flight=4).embed(PHOTOS[:8]), PHOTOS[:8])


def test_an_iterator_is_read_little_by_little(connect, serve):
    """When the server fails for good, what comes later has not been looked at: 2 on their way and 4 waiting at most."""
    seen = []
    photos = (seen.append(number) or PHOTOS[0] for number in range(100))
    with pytest.raises(ServingError):
        connect(serve(failures=["INTERNAL"] * 100), batch_size=1, max_in_flight=2).embed(photos)
    assert len(seen) <= 8


def test_rows_that_are_no_photo_are_told_apart(connect, serve):
    photos = [PHOTOS[0], b"bad one", PHOTOS[1], b"bad", PHOTOS[2]]
    check(connect(serve(), batch_size=2).embed(photos), photos)


def test_paths_are_read_and_may_stand_beside_bytes(connect, serve, tmp_path):
    (tmp_path / "a.jpg").write_bytes(PHOTOS[3])
    check(
        connect(serve()).embed([tmp_path / "a.jpg", PHOTOS[4], str(tmp_path / "a.jpg")]), [PHOTOS[n] for n in (3, 4, 3)]
    )


def test_no_photos_give_no_rows(connect, serve):
    client = connect(serve())
    embeddings, ok = client.embed([])
    assert (embeddings.shape, embeddings.dtype, ok.shape) == ((0, DIM), np.float32, (0,))
    assert [found.shape for found in client.search(iter([]))] == [(0, 0), (0, 0), (0,)]


def test_search_gives_skus_scores_and_ok(connect, serve):
    skus, scores, ok = connect(serve(), batch_size=2).search([*PHOTOS[:4], b"bad"])
    assert skus.tolist()[2] == [f"sku-ß-photo-02-{rank}" for rank in range(K)]
    assert (skus.shape, scores.shape, scores.dtype) == ((5, K), (5, K), np.float32)
    np.testing.assert_allclose(scores[0], [1, 0.75, 0.5])
    assert ok.tolist() == [True] * 4 + [False]


def test_the_server_says_which_embedder_it_runs_each_time(connect, serve):
    """It may take up a new version at any moment."""
    model = PlainModel()
    client = connect(serve(model))
    assert (client.fingerprint, client.embedding_dim) == (FINGERPRINT, DIM)
    model.fingerprint = "other"
    assert client.fingerprint == "other"


def test_a_version_can_be_asked_for(connect, serve):
    check(connect(serve(), version=7).embed(PHOTOS[:2]), PHOTOS[:2])


@pytest.mark.parametrize("versions", [{7: PlainModel()}, {6: ValueError("cut off"), 7: PlainModel()}])
def test_a_version_that_is_not_there_is_told_from_a_model_that_is_not(connect, versions):
    with ModelServer({"embedder": versions, "shoes": {1: PlainModel()}}) as server:
        message = r"the model 'embedder' at .* has no version 8 \(.*\)\. It serves 7: name one of these, or none for"
        with pytest.raises(ServingError, match=message):
            connect(server, version=8).embed(PHOTOS[:2])
        with pytest.raises(ServingError, match=r"has no model 'hats' \(Servable not found.*--model_name"):
            connect(server, model="hats", version=8).embed(PHOTOS[:2])
    assert len(server.requests) == 2  # neither is asked for again


def test_a_version_that_cannot_be_loaded_is_named_with_the_reason(connect):
    versions = {7: PlainModel()}
    with ModelServer({"embedder": versions}, max_num_load_retries=0) as server:
        versions[8] = ValueError("a file is cut off")
        wait_until(lambda: server.versions.states.get(("embedder", 8), ("", ""))[1])
        with pytest.raises(ServingError, match=r"has no version 8 \(.*; a file is cut off\)\. It serves 7"):
            connect(server, version=8).embed(PHOTOS[:2])


def test_a_version_that_is_being_loaded_is_waited_for(connect):
    """The model's warm-up waits for the client to have asked."""

    class Loading(PlainModel):
        asked = threading.Event()

        @property
        def warmup(self):
            self.asked.wait(10)
            return []

        @warmup.setter
        def warmup(self, requests):
            pass

    versions = {7: PlainModel()}
    with ModelServer({"embedder": versions}) as server:
        versions[8] = Loading()
        wait_until(lambda: ("embedder", 8) in server.versions.states)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            found = pool.submit(connect(server, version=8).embed, PHOTOS[:2])
            wait_until(lambda: server.requests)
            versions[8].asked.set()
            check(found.result(30), PHOTOS[:2])


def test_without_photos_no_request_for_photos_is_sent(connect, serve):
    """One such can end a server for everybody (`allowed_batch_sizes`). Only the dimension is asked for."""
    server = serve()
    client = connect(server)
    client.embed([])
    client.search([])
    assert [(request.model_spec.signature_name, len(photos_of(request))) for request in server.requests] == [
        ("describe", 1)
    ]


# Large photos


def declaring(kind, width, height):
    """A small photo that declares another size."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, kind)
    content = bytearray(file.getvalue())
    if kind == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("options, limit", [({}, 40_000_000), ({"max_pixels": 30_000}, 30_000)])
def test_a_photo_of_too_many_pixels_is_not_sent_and_its_row_is_as_the_server_would_say(
    connect, serve, tmp_path, kind, options, limit
):
    """10,000 pixels wide and just as high as is allowed, or a row more; pictures that would warn or raise in Pillow."""
    width = min(10_000, limit // 10)
    fine, over = declaring(kind, width, limit // width), declaring(kind, width, limit // width + 1)
    (tmp_path / "bomb").write_bytes(declaring(kind, 60_000, 60_000))
    server = serve()
    embeddings, ok = connect(server, **options).embed([over, fine, tmp_path / "bomb", PHOTOS[0]])
    assert [len(photo) for photo in photos_of(server.requests[0])] == [0, len(fine), 0, len(PHOTOS[0])]
    assert ok.tolist() == [False, True, False, True]
    assert not embeddings[[0, 2]].any() and embeddings[[1, 3]].any(1).all()


# Sizes


def test_batches_are_limited_in_bytes_too(connect, serve):
    """Photos of 900 bytes, messages of 8 KiB of which 4 KiB are kept for all else: REST makes 1,200 of each."""
    server = serve()
    photos = [b"%03d" % number * 300 for number in range(11)]
    check(connect(server, max_message_bytes=8192).embed(photos), photos)
    assert len(server.requests) > 2
    assert max(sum(map(len, photos_of(request))) for request in server.requests) <= 4096


def test_a_photo_that_fits_into_no_message_is_named(connect, serve, tmp_path):
    server = serve()
    (tmp_path / "poster.png").write_bytes(b"p" * 9000)
    client = connect(server, max_message_bytes=8192)
    with pytest.raises(ServingError, match=r"photo 1, '.*poster\.png' has 9,000 bytes, more than.*`max_message_bytes`"):
        client.embed([PHOTOS[0], tmp_path / "poster.png"])


def test_a_batch_too_large_for_the_server_is_halved(connect, serve):
    """16 photos of 1,000 bytes to a server that takes messages of 6,000: never sent again as it was."""
    server = serve(max_message_bytes=6000)
    photos = [b"%04d" % number * 250 for number in range(16)]
    check(connect(server, batch_size=16).embed(photos), photos)
    assert max(sizes(server)) == 4
    assert len(server.requests) == 4


def test_a_photo_too_large_for_the_server_is_named(connect, serve):
    photos = [PHOTOS[0], b"large" * 2000, PHOTOS[1]]
    with pytest.raises(ServingError, match=r"photo 1 has 10,000 bytes, which the server at .* does not take"):
        connect(serve(max_message_bytes=6000)).embed(photos)


def test_a_batch_larger_than_the_server_batches_names_the_argument(connect, serve):
    with pytest.raises(ServingError, match=r"takes smaller batches .*Lower `batch_size` to the server's max_"):
        connect(serve(PlainModel(batching={"max_batch_size": 2, "allowed_batch_sizes": []}), batching=True)).embed(
            PHOTOS
        )


# Failures


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_what_may_pass_is_tried_again(connect, serve, status):
    server = serve(failures=[status, status])
    check(connect(server).embed(PHOTOS[:3]), PHOTOS[:3])
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "INTERNAL"])
def test_what_will_not_pass_is_not_tried_again(connect, serve, status):
    server = serve(failures=[status])
    with pytest.raises(ServingError, match="told to fail"):
        connect(server).embed(PHOTOS[:3])
    assert len(server.requests) == 1


def test_it_gives_up_at_its_deadline_and_says_what_it_saw(connect, serve):
    """Waits of at most 0.1, 0.2, 0.4 ... s: two tries at least, and not many more."""
    server = serve(failures=["UNAVAILABLE"] + ["RESOURCE_EXHAUSTED"] * 99)
    client = connect(server, deadline=1.5)
    start = time.monotonic()
    with pytest.raises(ServingError) as refused:
        client.embed(PHOTOS[:1])
    assert time.monotonic() - start < 1.5
    begin = rf"the server at {re.escape(client.target)} did not answer after \d+ tries in [01]\.\d s: "
    assert re.match(begin, str(refused.value)), refused.value
    seen = {
        "UNAVAILABLE": "(UNAVAILABLE|HTTP 503), told to fail",
        "RESOURCE_EXHAUSTED": r"(RESOURCE_EXHAUSTED|HTTP 429)",
    }
    for words in seen.values():
        assert re.search(words, str(refused.value)), refused.value
    assert len(server.requests) >= 2


def test_a_try_that_takes_too_long_is_given_up(connect, serve):
    client = connect(serve(delay=9), timeout=0.1, deadline=0.6)
    start = time.monotonic()
    with pytest.raises(ServingError, match=r"did not answer after \d tries"):
        client.embed(PHOTOS[:1])
    assert time.monotonic() - start < 5


def test_nobody_there_is_said_with_target_and_mend(protocol):
    target = {"grpc": "localhost:1", "rest": "http://localhost:1"}[protocol]
    with (
        EmbeddingClient(target, deadline=0.3) as client,
        pytest.raises(
            ServingError, match=rf"server at {target} did not answer after \d+ tr.* in .*refused.*address and port"
        ),
    ):
        client.embed(PHOTOS)


@pytest.mark.parametrize("grpc_client", [True, False])
def test_ports_that_are_mixed_up_are_named_at_once(serve, grpc_client):
    server = serve()
    address, message = {
        True: (server.rest_address, "speaks HTTP/1, not gRPC.* Write 'http://127.*:.*' for REST, or .* usually 8500"),
        False: (
            f"http://{server.grpc_address}",
            "speaks gRPC, not HTTP/1.* Write '127.*:.*' for gRPC, or .* usually 8501",
        ),
    }[grpc_client]
    start = time.monotonic()
    with EmbeddingClient(address) as client, pytest.raises(ServingError, match=message):
        client.embed(PHOTOS)
    assert time.monotonic() - start < 10


def test_what_does_not_encrypt_is_named_at_once(serve):
    with (
        EmbeddingClient(f"https://{serve().rest_address}") as client,
        pytest.raises(ServingError, match="cannot be reached by TLS: .*Write http:// if it does not encrypt"),
    ):
        client.embed(PHOTOS)


def test_a_name_that_nobody_knows_is_said_after_the_deadline(protocol):
    """A server that is about to start may get its name only then."""
    name = ".".join(["nobody" * 10] * 5)  # too long for any name server to be asked
    target = {"grpc": f"{name}:8500", "rest": f"http://{name}:8501"}[protocol]
    with (
        EmbeddingClient(target, deadline=0.3) as client,
        pytest.raises(ServingError, match=r"did not answer after \d+ tr.*([Nn]ame|resol|lookup).*is this its address"),
    ):
        client.embed(PHOTOS)


@pytest.mark.parametrize("signature", ["describe", "search", "serving_default"])
def test_a_model_without_the_signature_is_named(connect, serve, signature):
    client = connect(serve(PlainModel(signatures=["other"])))
    use = {"describe": lambda: client.fingerprint, "search": lambda: client.search(PHOTOS)}
    with pytest.raises(ServingError, match=rf"has no signature '{signature}' .*[Ee]xport"):
        use.get(signature, lambda: client.embed(PHOTOS))()


def test_a_server_of_something_else_is_found_out():
    """A web server that says yes to everything."""
    import http.server

    class Shop(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with (
        EmbeddingClient(f"http://127.0.0.1:{server.server_port}") as client,
        pytest.raises(ServingError, match=r"does not answer as TensorFlow Serving does: b'<html>Welcome"),
    ):
        client.embed(PHOTOS[:1])
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "photos, message",
    [
        ("photo.jpg", r"`photos` must be a list of paths or of bytes.*Write \[photo\] for one"),
        (b"bytes", r"Write \[photo\] for one"),
        (["no-such.jpg"], r"photos\[0\]='no-such\.jpg', which cannot be read"),
        ([b"x", 3.5], r"photos\[1\]=3\.5, which is neither"),
    ],
)
def test_what_is_no_photo_is_refused(photos, message):
    with EmbeddingClient("http://localhost:1") as client, pytest.raises(ServingError, match=message):
        client.embed(photos)


@pytest.mark.parametrize(
    "target",
    [
        *("localhost", "", None, 8500, ":1", "localhost:", "localhost:abc", "localhost:0", "localhost:99999", "a b:1"),
        *("http://", "http://:1", "http://localhost:abc", "http://localhost:99999", "http://[::1", "http://a b:1"),
        *(f"http://{'a' * 64}:1", "http://user:word@localhost:1", "ftp://localhost:1", "localhost:1/path"),
    ],
)
def test_what_is_no_address_is_refused(target):
    with pytest.raises(
        ServingError, match=r"`target` must be like 'localhost:8500' \(gRPC\) or 'http://localhost:8501'"
    ):
        EmbeddingClient(target)


@pytest.mark.parametrize(
    "argument", ["batch_size", "max_in_flight", "max_pixels", "timeout", "deadline", "max_message_bytes"]
)
def test_numbers_are_positive(argument):
    with pytest.raises(ServingError, match=f"`{argument}` must be more than 0. Received: {argument}=0"):
        EmbeddingClient("http://localhost:1", **{argument: 0})


def test_grpc_without_its_package_says_what_to_install(run_python):
    code = """
import sys
sys.modules["tensorflow_serving"] = None
from eet_tf.client import EmbeddingClient, ServingError
EmbeddingClient("http://localhost:1").close()
assert "tensorflow" not in sys.modules and "grpc" not in sys.modules
try:
    EmbeddingClient("localhost:1")
except ServingError as error:
    print(error)
"""
    assert "pip install 'eet-tf[serving]'" in run_python(code, fresh=True)[0]


# Outages, crowds

MANY = [b"%04d" % number for number in range(2000)]


def test_2000_photos_come_back_from_a_server_that_was_away_for_8_seconds(serve):
    """One client asks by gRPC and one by REST at the same time."""
    server = serve(delay=0.05)
    with (
        EmbeddingClient(target(server, "grpc")) as first,
        EmbeddingClient(target(server, "rest")) as second,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(client.embed, MANY) for client in (first, second)]
        wait_until(lambda: len(server.requests) > 20)
        server.kill()
        time.sleep(8)
        assert not any(each.done() for each in waiting)
        server.delay = 0.0
        server.start()
        for each in waiting:
            check(each.result(60), MANY)


def test_a_frozen_server_that_goes_on_is_asked_again(connect, serve):
    server = serve()
    client = connect(server, timeout=0.3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server.freeze()
        waiting = pool.submit(client.embed, PHOTOS)
        wait_until(lambda: len(server.requests) > 4)
        server.thaw()
        check(waiting.result(60), PHOTOS)


@pytest.mark.parametrize("callers, photos, seconds", [(4, 40, 0.1), (33, 10, 0.02)])
def test_callers_that_have_more_on_their_way_than_the_server_has_threads_all_get_their_answers(
    serve, callers, photos, seconds
):
    """Clients of their own, each with up to 4 requests on their way, and a server of 2 cores: 8 threads."""
    server = serve(delay=seconds, grpc_max_threads=8)
    start = threading.Barrier(callers)

    def ask(number):
        own = [b"%d-%d" % (number, row) for row in range(photos)]
        with EmbeddingClient(server.grpc_address, batch_size=1) as client:
            start.wait(30)
            check(client.embed(own), own)

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        list(pool.map(ask, range(callers)))
    assert 0 < server.turned_away < 3 * photos * callers


def test_a_busy_server_is_asked_less_at_once():
    """Refused together, they halve the number once; n answers make one more of n."""
    slots, stop = Slots(8), threading.Event()
    taken = [slots.one(stop) for _ in range(8)]
    for each in taken:
        each.__enter__()
    assert slots.number == 8
    for each in taken:
        with contextlib.suppress(TransientError):
            each.__exit__(TransientError, TransientError(), None)
    assert slots.number == 4
    for _ in range(5):
        with slots.one(stop):
            pass
    assert slots.number == 5
    for _ in range(4):
        with contextlib.suppress(TransientError), slots.one(stop):
            raise TransientError
    assert slots.number == 1


def test_kept_alive_connections_that_are_dead_are_replaced_at_once(serve):
    """Four of them: one request finds that out, and none is tried after it. There are no waits."""
    server = serve()
    with EmbeddingClient(f"http://{server.rest_address}", batch_size=1) as client:
        server.gate = threading.Barrier(4)
        client.embed(PHOTOS[:4])
        server.gate = None
        assert len(server.connections) == 4
        dead = set(server.connections)
        server.drop_connections()
        wait_until(lambda: not server.connections)
        for attempt in range(3):
            check(client.embed(PHOTOS[:1]), PHOTOS[:1])
            assert len(server.connections) == 1, attempt
        assert not server.connections & dead
        assert client._slots.number == 4  # no try has failed


class Wire:
    """A TCP proxy that can lose what is sent over the connections it has, as a network does that drops idle ones."""

    def __init__(self, address):
        self._to, self._ends, self._is_lost = address.split(":"), [], threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                ends = self._listening.accept()[0], socket.create_connection(self._to)
                self._ends += ends
                for source, sink in (ends, ends[::-1]):
                    threading.Thread(target=self._carry, args=(source, sink, self._is_lost), daemon=True).start()

    @staticmethod
    def _carry(source, sink, is_lost):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if not is_lost.is_set():
                    sink.sendall(data)

    def lose(self):
        """What is sent over connections of before arrives no more; nobody is told."""
        self._is_lost.set()
        self._is_lost = threading.Event()

    def close(self):
        for each in (self._listening, *self._ends):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_connection_that_carries_nothing_any_more_is_given_up(serve, protocol):
    server = serve()
    with contextlib.closing(Wire(target(server, protocol).removeprefix("http://"))) as wire:
        address = wire.address if protocol == "grpc" else f"http://{wire.address}"
        with EmbeddingClient(address, timeout=0.5, deadline=20.0) as client:
            check(client.embed(PHOTOS), PHOTOS)
            wire.lose()
            check(client.embed(PHOTOS), PHOTOS)


def test_the_request_of_another_caller_that_spoils_the_batch_is_not_ours(serve):
    """A stranger's request of shape [1, 1] meets ours of shape [1] in one batch; ours is sent again."""
    model = PlainModel(batching={"max_batch_size": 8, "batch_timeout_micros": 500_000, "allowed_batch_sizes": []})
    server = serve(model, batching=True)
    with (
        EmbeddingClient(server.grpc_address) as client,
        grpc.insecure_channel(server.grpc_address) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.embed, PHOTOS[:1])
        wait_until(lambda: server.requests)
        stranger = predict_pb2.PredictRequest()
        stranger.CopyFrom(server.requests[0])
        stranger.inputs["image_bytes"].tensor_shape.dim.add(size=1)
        with pytest.raises(grpc.RpcError, match="different shapes"):
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(stranger, timeout=30)
        check(waiting.result(30), PHOTOS[:1])


# Threads and closing


def test_many_threads_share_a_client(connect, serve):
    client = connect(serve(failures=["UNAVAILABLE"] * 3), batch_size=3)
    slices = [PHOTOS[start : start + 7] for start in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for photos, found in zip(slices, pool.map(client.embed, slices)):
            check(found, photos)


def test_connections_are_used_again(connect, serve, protocol):
    if protocol == "grpc":
        pytest.skip("a channel is one connection")
    server = serve()
    client = connect(server, batch_size=1, max_in_flight=2)
    for _ in range(3):
        client.embed(PHOTOS)
    assert len(server.connections) <= 2


def test_a_server_that_comes_back_is_found_again(connect, serve):
    """The connection that was open is dead; the client sees it and opens another."""
    server = serve()
    client = connect(server, deadline=2.0)
    check(client.embed(PHOTOS), PHOTOS)
    server.kill()
    with pytest.raises(ServingError, match="did not answer"):
        client.embed(PHOTOS)
    server.start()
    wait_until(lambda: is_answered(client))
    check(client.embed(PHOTOS), PHOTOS)


def is_answered(client):
    try:
        return client.embedding_dim == DIM
    except ServingError:
        return False


def test_a_closed_client_says_so_and_may_be_closed_again(connect, serve):
    client = connect(serve())
    with client:
        check(client.embed(PHOTOS), PHOTOS)
    client.close()
    for use in (lambda: client.embed(PHOTOS), lambda: client.search(PHOTOS), lambda: client.fingerprint):
        with pytest.raises(ServingError, match="the client was closed"):
            use()


def test_closing_ends_what_is_on_its_way(connect, serve):
    server = serve(delay=0.2)
    client = connect(server, batch_size=1, max_in_flight=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.embed, PHOTOS)
        while not server.requests:
            time.sleep(0.01)
        client.close()
        with pytest.raises(ServingError):
            waiting.result(timeout=10)
    assert len(server.requests) < len(PHOTOS)


@pytest.mark.parametrize("ending", ["close", "Ctrl-C"])
def test_waits_for_a_server_that_is_away_end_at_once(ending):
    """By close() from another thread; and by Ctrl-C, which arrives while photos are read. After 2 s waits are long."""
    clients = [EmbeddingClient(address, batch_size=1) for address in ("localhost:1", "http://localhost:1")]

    def photos():
        yield from PHOTOS[:7]
        time.sleep(2)
        if ending == "Ctrl-C":
            raise KeyboardInterrupt
        yield from PHOTOS[7:]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.embed, photos()) for client in clients]
        if ending == "Ctrl-C":
            for each in waiting:
                with pytest.raises(KeyboardInterrupt):
                    each.result(30)
        else:
            time.sleep(2)
        start = time.monotonic()
        for client in clients:
            client.close()
        if ending == "close":
            for each in waiting:
                with pytest.raises(ServingError, match="the client was closed"):
                    each.result(30)
        assert time.monotonic() - start < 1.5


def test_closing_ends_what_a_frozen_server_holds(connect, serve):
    server = serve()
    client = connect(server)
    server.freeze()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.embed, PHOTOS)
        wait_until(lambda: len(server.requests) == 2)
        start = time.monotonic()
        client.close()
        with pytest.raises(ServingError, match="the client was closed"):
            waiting.result(30)
        assert time.monotonic() - start < 3


# Waits


class Clock:
    """Time that passes only when somebody waits or works; also the event that nobody sets."""

    def __init__(self):
        self.now, self.waits, self.ends = 0.0, [], []

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def longest(self, low, high):
        assert low == 0.0
        self.ends.append(high)
        return high


def tried(clock, seconds, allowed, deadline):
    """Tries what takes `seconds` or all it is given, and fails."""

    def attempt(timeout):
        allowed.append(timeout)
        clock.now += min(seconds, timeout)
        raise TransientError("busy")

    Retries(2.0, deadline, clock=lambda: clock.now, draw=clock.longest).call(attempt, "here", clock)


def test_waits_double_up_to_a_limit_and_the_last_leaves_a_second_for_a_try():
    """After 16.3 s another 5 would be too many of 20, and so would any after 19."""
    clock = Clock()
    with pytest.raises(ServingError, match=r"after 10 tries in 19\.0 s: busy \(10 times\)"):
        tried(clock, 0.0, [], deadline=20.0)
    np.testing.assert_allclose(clock.waits, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 20 - 16.3 - 1])


def test_waits_are_drawn_from_all_of_the_range():
    """Full jitter: between nothing and the limit, not around it. The first of each 200."""
    waits = []
    for _ in range(200):
        clock = Clock()
        retries = Retries(1.0, 0.2, clock=lambda clock=clock: clock.now)
        with pytest.raises(ServingError):
            retries.call(lambda timeout: (_ for _ in ()).throw(TransientError("busy")), "here", clock)
        waits.append(clock.waits[0])
    assert 0 <= min(waits) < 0.01 and 0.09 < max(waits) <= 0.1


def test_no_try_and_no_wait_goes_past_the_deadline():
    """Each try takes its 2 s; waits of 0.1, 0.2, 0.4 ...: after 4 tries 8.7 s are gone and 1.3 left for the last."""
    clock, allowed = Clock(), []
    with pytest.raises(ServingError, match=r"after 5 tries in 10\.0 s: busy"):
        tried(clock, 5.0, allowed, deadline=10.0)
    np.testing.assert_allclose(allowed, [2, 2, 2, 2, 10 - 8 - 1.5])
    assert clock.now == pytest.approx(10.0)
