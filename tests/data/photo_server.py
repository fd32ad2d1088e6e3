"""A server of photos on this machine, which answers each path as a test says: also late, wrongly, or not at all."""

import collections
import contextlib
import http.server
import threading


class PhotoServer:
    """Answers over HTTP on 127.0.0.1.

    `answers[path]` is a list of what is done at the first request, the second, ...; the last one goes on. Each is
    bytes, the number of an error, or a function of the handler. `asked` counts the requests of each path.
    """

    def __init__(self):
        self.answers = {}
        self.asked = collections.Counter()
        self.released = threading.Event()  # for answers that wait until the test is over
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def address(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def put(self, path, *answers):
        """Says how a path is answered; returns its URL."""
        self.answers[path] = answers
        return self.address + path

    def _handler(self):
        own = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                number = own.asked[self.path]
                own.asked[self.path] += 1
                answers = own.answers.get(self.path, [404])
                own.give(self, answers[min(number, len(answers) - 1)])

            def log_message(self, *_):
                pass

        return Handler

    def give(self, handler, answer):
        if callable(answer):
            answer(handler)
        elif isinstance(answer, int):
            handler.send_error(answer)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)

    def cut_off(self, content):
        """An answer that ends after half of what it declares."""

        def answer(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True

        return answer

    def silent(self, handler):
        """Says nothing until the test is over."""
        self.released.wait(30)
        handler.close_connection = True

    def dripping(self, handler):
        """Sends a byte now and then, and never all."""
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not self.released.wait(0.01):
                handler.wfile.write(b"x")
        handler.close_connection = True

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
