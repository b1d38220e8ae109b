"""A web server in the test process whose addresses behave as badly as a test wants."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """How one address answers.

    breaks: for each connection in turn, after how many bytes of the body it is cut; later ones are whole.
    statuses: for each connection in turn, a status in place of an answer.
    if_range: whether the rest of another version is kept back.
    early: by how many bytes the rest begins before what was asked for.
    most: bytes of the rest in one answer.
    slow: seconds between the first half of the body and the second.
    """

    body: bytes = b""
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    early: int = 0
    most: int | None = None
    etag: str | None = None
    redirect: str | None = None
    slow: float = 0.0
    drip: bool = False
    halfway: threading.Event = field(default_factory=threading.Event)
    requests: list[str | None] = field(default_factory=list)  # the Range each connection asked for


class Site:
    """The pages of the server, by path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page] = {}

    def put(self, path: str, body: bytes = b"", **how) -> str:
        self.pages[path] = Page(body, **how)
        return self.url + path


@contextmanager
def serve() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            self.send_header("Connection", "close")
            super().end_headers()

        def do_GET(self) -> None:
            page = site.pages.get(self.path)
            if page is None:
                self.send_error(404)
                return
            asked = self.headers["Range"]
            page.requests.append(asked)
            if page.statuses:
                self.send_error(page.statuses.pop(0))
                return
            if page.redirect is not None:
                self.send_response(302)
                self.send_header("Location", page.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = page.etag or f'"{hashlib.md5(page.body).hexdigest()}"'
            start, stop = 0, len(page.body)
            if asked and page.ranges and (not page.if_range or self.headers["If-Range"] in (None, etag)):
                start = int(asked.removeprefix("bytes=").removesuffix("-")) - page.early
                stop = min(start + (page.most or stop), stop)
            if start >= len(page.body) > 0 and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(page.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(stop - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(page.body)}")
            self.end_headers()
            self._send(page, page.body[start:stop])

        def _send(self, page: Page, body: bytes) -> None:
            try:
                if page.breaks:
                    self.wfile.write(body[: page.breaks.pop(0)])
                elif page.drip:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                else:
                    half = len(body) // 2
                    self.wfile.write(body[:half])
                    self.wfile.flush()
                    page.halfway.set()
                    time.sleep(page.slow)
                    self.wfile.write(body[half:])
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up, as it should

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
