"""A REST API that keeps what it is given and answers in the shapes of R §4; it validates nothing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from xds_server.cli import kumactl

TIMES = {"creationTime": "2020-01-01T00:00:00Z", "modificationTime": "2020-01-01T00:00:00Z"}
NOT_FOUND = {"title": "Could not retrieve a resource", "details": "Not found"}


class Api:
    """`resources` by path; `refusals` by (method, path): status and body, sent instead."""

    def __init__(self) -> None:
        self.resources: dict[str, dict] = {}
        self.refusals: dict[tuple[str, str], tuple[int, object]] = {}
        self.requests: list[tuple[str, str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.warning = ""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.requests.append((self.command, self.path, json.loads(body) if body else None))
                api.headers.append(dict(self.headers))
                status, answer = api.answer(self.command, self.path, json.loads(body) if body else None)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                if api.warning:
                    self.send_header("Warning", f'299 - "{api.warning}"')
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  # names of http.server

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, method: str, target: str, body: object) -> tuple[int, object]:
        path = urlsplit(target).path
        if refusal := self.refusals.get((method, path)):
            return refusal
        if method == "POST":
            return 200, "a.b.c"
        if path == "/":
            return 200, {"tagline": "Kuma", "version": "1.5.1"}
        if method == "PUT":
            created = path not in self.resources
            self.resources[path] = {"type": body["type"], **TIMES, **body}
            return (201 if created else 200), ""
        if path in self.resources:
            found = self.resources[path] if method == "GET" else self.resources.pop(path)
            return 200, found if method == "GET" else ""
        below = [one for key, one in sorted(self.resources.items()) if key.rpartition("/")[0] == path]
        if method == "GET" and path.endswith("s"):
            return 200, self._page(path, below, parse_qs(urlsplit(target).query))
        return 404, NOT_FOUND

    def _page(self, path: str, items: list[dict], query: dict[str, list[str]]) -> dict:
        size, offset = int(query.get("size", ["100"])[0]), int(query.get("offset", ["0"])[0])
        left = len(items) > offset + size
        following = f"{self.address}{path}?offset={offset + size}" if left else None
        return {"total": len(items), "items": items[offset : offset + size], "next": following}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUMACTL_TOKEN", raising=False)
    server = Api()
    monkeypatch.setenv("KUMACTL_ADDRESS", server.address)
    yield server
    server.close()


@pytest.fixture
def run(api: Api, capsys: pytest.CaptureFixture[str]):
    """Run kumactl; (exit status, stdout, stderr)."""

    def command(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            kumactl.main(argv)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command
