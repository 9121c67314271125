"""A web server for tests that breaks off, forgets, changes its file or refuses."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves one file, and notes in ``starts`` from where on it was asked for it.

    Args:
        limit: bytes of an answer after which it breaks off.
        ranges: whether it knows them.
        status: what to refuse with.
        etag: of the file; a ``weak`` server sends it, and answers If-Range as if it had not been asked.
        shift: bytes that it is wrong by when asked for a part.

    Attributes:
        paused: an event that it waits for after the first byte of an answer, if there is one.
    """

    def __init__(self, data, limit=1 << 40, ranges=True, status=0, etag='"one"', weak=False, shift=0):
        self.data, self.limit, self.ranges, self.status = data, limit, ranges, status
        self.etag, self.weak, self.shift = etag, weak, shift
        self.starts = []
        self.paused = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/files/given.tar.xz?download=1"

    def answer(self, request):
        asked = request.headers.get("Range", "")
        known = request.headers.get("If-Range", self.etag)
        part = asked and self.ranges and (self.weak or known == self.etag)
        start = int(asked[6:-1]) if part else 0
        self.starts.append(start)
        if self.status:
            request.send_error(self.status)
        elif start >= len(self.data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.end_headers()
        else:
            start = max(start - self.shift, 0)
            request.send_response(206 if part else 200)
            if part:
                request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
            request.send_header("Content-Length", str(len(self.data) - start))
            if self.etag:
                request.send_header("ETag", self.etag)
            request.end_headers()
            if self.paused:
                request.wfile.write(self.data[start : start + 1])
                self.paused.wait(20)
                start += 1
            request.wfile.write(self.data[start : start + self.limit])

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
