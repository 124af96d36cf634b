"""A model hub of one repository on this machine: just what huggingface_hub asks when it fetches."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def commit_of(reference: str) -> str:
    """Return the commit that a reference of the repository points at."""
    return hashlib.sha1(reference.encode()).hexdigest()


@contextmanager
def serve_hub(
    repository: str, revisions: dict[str, Path], pull_requests: dict[int, str] | None = None
) -> Iterator[str]:
    """Serve a repository and yield the hub's address.

    Args:
        repository: Its id.
        revisions: The directory of each reference, such as "main" and "refs/pr/1".
        pull_requests: The authors of open requests that offer safetensors, by number.
    """
    references = {commit_of(name): name for name in revisions} | {name: name for name in revisions}
    discussions = [
        {
            "title": "Adding `safetensors` variant of this model",
            "num": number,
            "author": {"name": author},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "status": "open",
            "repo": {"name": repository, "type": "model"},
            "isPullRequest": True,
        }
        for number, author in (pull_requests or {}).items()
    ]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api = f"/api/models/{repository}/"
            if path == f"{api}discussions":
                page = {"discussions": discussions, "start": 0, "count": len(discussions)}
                self.answer(json.dumps(page).encode())
            elif path.startswith(f"{api}revision/"):
                self.send_listing(path.removeprefix(f"{api}revision/"), self.model_info)
            elif path.startswith(f"{api}tree/"):
                self.send_listing(path.removeprefix(f"{api}tree/"), self.tree)
            elif path.startswith(f"/{repository}/resolve/"):
                reference, _, name = path.removeprefix(f"/{repository}/resolve/").rpartition("/")
                file = revisions[references[reference]] / name
                self.answer(file.read_bytes(), commit=commit_of(references[reference]))
            else:
                self.fail("RepoNotFound")

        def do_HEAD(self) -> None:
            self.do_GET()

        def send_listing(self, reference: str, listing: Any) -> None:
            if reference in references:
                self.answer(json.dumps(listing(references[reference])).encode())
            else:
                self.fail("RevisionNotFound")

        def model_info(self, name: str) -> dict[str, Any]:
            files = [{"rfilename": entry["path"]} for entry in self.tree(name)]
            return {"id": repository, "sha": commit_of(name), "siblings": files}

        def tree(self, name: str) -> list[dict[str, Any]]:
            return [
                {
                    "type": "file",
                    "path": file.name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in sorted(revisions[name].iterdir())
            ]

        def answer(self, body: bytes, commit: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def fail(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
