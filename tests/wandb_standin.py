"""As much of a W&B server as one run and one report need, on this machine. Keeps what it was sent."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "me"
VIEW_ID = "VmlldzoxMjM="


class Server(ThreadingHTTPServer):
    """seen: (name of the operation or path, body) of every POST. projects: those that are there already.

    status: what GraphQL requests are answered with. hang_s: how long they wait for it.
    """

    daemon_threads = True

    def __init__(self, *, status: int = 200, hang_s: float = 0.0, projects: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.status, self.hang_s, self.projects = status, hang_s, list(projects)

    @property
    def env(self) -> dict[str, str]:
        """What makes wandb talk to this server."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": "0" * 40}

    def bodies(self, name: str) -> list[dict[str, Any]]:
        """The variables of every operation of that name."""
        return [body["variables"] for seen, body in self.seen if seen == name]

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


@contextmanager
def serving(**how: Any) -> Iterator[Server]:
    """A server, until the end of the body."""
    with Server(**how) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield http
        finally:
            http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self):
        text = self._body()
        body = json.loads(text) if text[:1] == b"{" else {}
        name = self.path
        if name == "/graphql":
            name = re.match(r"\s*\w+\s+(\w+)", body["query"])[1]  # type: ignore[index]
            time.sleep(self.server.hang_s)
        self.server.seen.append((name, body))
        self._reply({"data": self._answer(name, body)} if "query" in body else {}, self.path == "/graphql")

    do_PUT = do_POST

    def do_GET(self):
        self._reply({})

    def _body(self) -> bytes:
        text = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                text += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(text) if self.headers.get("Content-Encoding") == "gzip" else text

    def _answer(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        told = body.get("variables") or {}
        return {**self._of_a_run(told), **self._of_a_report(told)}.get(name, {})

    def _of_a_run(self, told: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "tests", "entity": {"id": "e", "name": ENTITY}}
        url = f"http://{self.headers['Host']}/upload/"
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
        name = told.get("name") or "point"
        bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "project": project}
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
        files = [{"name": file, "uploadUrl": url + file} for file in told.get("files") or []]
        return {
            "RunResumeStatus": {"model": None},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "Viewer": {"viewer": viewer},
            "ArtifactType": {"project": {"artifact": None}},
            "CreateArtifact": {"createArtifact": {"artifact": artifact}},
            "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}},
        }

    def _of_a_report(self, told: dict[str, Any]) -> dict[str, Any]:
        def project(name: str) -> dict[str, Any]:
            return {"id": name, "name": name, "entityName": ENTITY, "createdAt": "2026-01-01T00:00:00Z",
                    "isBenchmark": False, "user": None}  # fmt: skip

        edges = [{"node": project(name)} for name in self.server.projects]
        page = {"endCursor": None, "hasNextPage": False}
        made = {"id": "m", "name": "m", "entityName": ENTITY, "description": "", "access": "", "views": "{}"}
        keys = ("id", "name", "type", "displayName", "description", "spec")
        view = {**{key: told.get(key) for key in keys}, "id": told.get("id") or VIEW_ID}
        view["project"] = {"id": "p", "name": told.get("projectName"), "entityName": told.get("entityName")}
        return {
            "GetDefaultEntity": {"viewer": {"id": "u", "entity": ENTITY}},
            "GetProjects": {"models": {"pageInfo": page, "edges": edges}},
            "CreateProject": {"result": {"project": made, "model": made, "inserted": True}},
            "upsertView": {"upsertView": {"view": view, "inserted": not told.get("id")}},
        }

    def _reply(self, answer: dict[str, Any], graphql: bool = False) -> None:
        text = json.dumps(answer).encode()
        self.send_response(self.server.status if graphql else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format, *args):
        """Silent."""
