"""A model hub on this machine: serves repositories held in memory over the part of the hub's HTTP interface we use.

As on the real one, a commit serves what its branch does, files have ETags and ranges, and what is missing says so in
`X-Error-Code`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

GLUE_COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
CARD = """---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
  - split: test
    path: sst2/test-*
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: idx
    dtype: int32
---
"""


@dataclass
class Repository:
    """The files of one commit and the other names of that commit."""

    commit: str
    files: dict[str, bytes]
    names: tuple[str, ...] = ("main",)
    private: bool = False


@dataclass
class Hub:
    """What is served; `requests` are the paths that were asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)  # models/ID or datasets/ID
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)  # that may write
    address: str = ""

    def add_model(self, hub_id: str, folder: Path, *, commit: str, names: tuple[str, ...] = ("main",)) -> None:
        """Serves the files of `folder` as the model `hub_id`."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        self.repositories[f"models/{hub_id}"] = Repository(commit, files, names)

    def add_sst2(self, train: list[tuple[str, int]], dev: list[tuple[str, int]]) -> None:
        """Serves GLUE with one task, laid out as nyu-mll/glue is; the test split has no labels."""
        files = {"README.md": CARD.encode()}
        for split, rows in (("train", train), ("validation", dev), ("test", [("unlabelled", -1)])):
            files[f"sst2/{split}-00000-of-00001.parquet"] = parquet(rows)
        self.repositories["datasets/nyu-mll/glue"] = Repository(GLUE_COMMIT, files)

    def add_set(self, hub_id: str, files: dict[str, bytes], *, commit: str = "b" * 40) -> None:
        """Serves `files` as the data set `hub_id`."""
        self.repositories[f"datasets/{hub_id}"] = Repository(commit, files)


def parquet(rows: list[tuple[str, int]]) -> bytes:
    """The rows as GLUE's Parquet files hold them."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        "sentence": pyarrow.array([text for text, _ in rows], pyarrow.string()),
        "label": pyarrow.array([label for _, label in rows], pyarrow.int64()),
        "idx": pyarrow.array(range(len(rows)), pyarrow.int32()),
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers for `server.hub`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        """Headers of what GET sends."""
        self.answer()

    def do_GET(self) -> None:
        """A file, or what the interface says about a repository."""
        self.answer()

    def do_POST(self) -> None:
        """The interface's paths-info."""
        self.answer()

    def answer(self) -> None:
        """Finds the repository that the path names, then what is asked of it."""
        body = self.body()
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        if path == "":
            return self.send(200, b"a hub")
        if path in ("api/repos/create", "api/validate-yaml") or re.fullmatch(
            r"api/models/.+/(preupload|commit)/main", path
        ):
            return self.write(path, body)
        api = path.startswith("api/")
        path = path.removeprefix("api/")
        if not path.startswith(("models/", "datasets/")):
            path = f"models/{path}"
        for name, repository in self.hub.repositories.items():
            if path == name or path.startswith(f"{name}/"):
                rest = path[len(name) :].strip("/")
                return self.api(name, repository, rest, body) if api else self.file(repository, rest)
        return self.fail(404, "RepoNotFound")

    @property
    def hub(self) -> Hub:
        """What is served."""
        return self.server.hub  # type: ignore[attr-defined]

    def body(self) -> bytes:
        """What was sent, in one piece or in chunks."""
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def write(self, path: str, body: bytes) -> None:
        """A new repository, a look at its card, the way in which files are sent, or a commit of some."""
        if path == "api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            return self.fail(401, "Unauthorized")
        if path == "api/repos/create":
            asked = json.loads(body)
            hub_id = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            made = Repository("c" * 40, {}, private=asked.get("visibility") == "private")
            self.hub.repositories.setdefault(f"models/{hub_id}", made)
            return self.json({"url": f"{self.hub.address}/{hub_id}", "name": hub_id})
        _, *names, kind, _ = path.split("/")
        repository = self.hub.repositories["/".join(names)]
        if kind == "preupload":
            return self.json({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                        for file in json.loads(body)["files"]]})  # fmt: skip
        for line in body.splitlines():
            if (entry := json.loads(line))["key"] == "deletedFile":
                repository.files.pop(entry["value"]["path"])
            elif entry["key"] == "file":
                repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        address = f"{self.hub.address}/{'/'.join(names[1:])}/commit/{'d' * 40}"
        self.json({"success": True, "commitOid": "d" * 40, "commitUrl": address, "hookOutput": ""})

    def file(self, repository: Repository, rest: str) -> None:
        """resolve/REVISION/PATH: the bytes of a file, or the part of it that was asked for."""
        for revision in (repository.commit, *repository.names):
            if rest.startswith(f"resolve/{revision}/"):
                name = rest.removeprefix(f"resolve/{revision}/")
                if name not in repository.files:
                    return self.fail(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
                content = repository.files[name]
                etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
                headers = {"X-Repo-Commit": repository.commit, **etag}
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
                if asked:
                    first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                    return self.send(206, content[first : last + 1], headers)
                return self.send(200, content, headers)
        return self.fail(404, "RevisionNotFound")

    def api(self, name: str, repository: Repository, rest: str, body: bytes) -> None:
        """The repository's description, its tree, or facts on some of its paths."""
        kind, _, tail = rest.partition("/")
        known = (repository.commit, *repository.names)
        if kind and not any(f"{tail}/".startswith(f"{revision}/") for revision in known):
            return self.fail(404, "RevisionNotFound")
        if kind in ("", "revision"):
            siblings = [{"rfilename": file} for file in repository.files]
            hub_id = name.partition("/")[2]
            fields = {"id": hub_id, "sha": repository.commit, "siblings": siblings, "tags": []}
            fields["private"] = repository.private
            return self.json({**fields, "downloads": 0, "likes": 0, "lastModified": "2024-01-30T07:41:18.000Z"})
        revision = next(r for r in known if f"{tail}/".startswith(f"{r}/"))
        folder = tail[len(revision) :].strip("/")
        if kind == "tree":
            return self.json(self.entries(repository, folder, recursive="true" in self.path.lower()))
        if kind == "paths-info":
            paths = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            known = [entry for entry in self.entries(repository, "", recursive=True) if entry["path"] in paths]
            return self.json(known)
        return self.fail(404, "EntryNotFound")

    def entries(self, repository: Repository, folder: str, *, recursive: bool) -> list[dict]:
        """Files and folders in `folder`."""
        start, found = f"{folder}/" if folder else "", {}
        for file, content in repository.files.items():
            if not file.startswith(start):
                continue
            parts = file[len(start) :].split("/")
            for depth in range(1, len(parts)):
                path = start + "/".join(parts[:depth])
                oid = hashlib.sha1(path.encode()).hexdigest()
                found[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
            oid = hashlib.sha1(content).hexdigest()
            found[file] = {"type": "file", "oid": oid, "size": len(content), "path": file}
        return [entry for path, entry in found.items() if recursive or "/" not in path[len(start) :]]

    def json(self, value) -> None:
        """200 with `value`."""
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        """An error as the hub words it."""
        self.send(status, code.encode(), {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        """One answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


ROOT = Path(__file__).parents[1]
HUB_VARIABLES = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_CACHE_HOME")


def ask_in_a_process(code: str, *arguments: str, folder: Path, endpoint: str, **environment: str) -> dict:
    """The JSON on the last line of what `code` prints, with the hub at `endpoint` and its cache in `folder`/hf.

    A process of its own, as the hub's client reads its environment when it is imported.
    """
    ours = {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": endpoint}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(HUB_VARIABLES)}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**inherited, **ours, "HF_UPDATE_DOWNLOAD_COUNTS": "0", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.address` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = hub  # type: ignore[attr-defined]
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
