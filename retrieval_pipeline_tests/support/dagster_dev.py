"""`dagster dev` as people start it, with the daemon, and its GraphQL."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
# For a machine that does ten other things; an idle one needs a minute.
PATIENCE_SECONDS = 600.0

Found = TypeVar("Found")


def eventually(
    look: Callable[[], Found | None], what: str, patience: float = PATIENCE_SECONDS
) -> Found:
    """Return what `look` finds, looking again until it finds something."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {patience:.0f} s")


class DagsterDev:
    """A running `dagster dev`; use it in a `with` statement."""

    def __init__(self, config: Path, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / "dev.log"
        command = ["-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=home,
                env={
                    **os.environ,
                    "DAGSTER_HOME": str(home),
                    "RETRIEVAL_CONFIG": str(config),
                    "PYTHONPATH": str(ROOT),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def __enter__(self) -> "DagsterDev":
        try:
            eventually(self._is_up, "dagster dev answers")
        except AssertionError:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _is_up(self) -> bool | None:
        assert self._process.poll() is None, self.log.read_text()
        try:
            self.ask("{version}")
        except urllib.error.URLError:
            return None
        return True

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            # With its daemon and servers, which would go on without it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Return the data that answers a GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data
