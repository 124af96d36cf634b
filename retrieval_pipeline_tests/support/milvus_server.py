"""A real Milvus server for tests, from the package `milvus`: etcd and its queue are within it."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from retrieval_pipeline_tests.support.processes import made_once

# The name and password that every server has at first.
TOKEN = "root:Milvus"
# Seconds within which it starts, on a machine that has much else to do.
STARTS_WITHIN = 120.0

_PR_SET_PDEATHSIG = 1


class MilvusServer:
    """A standalone server with users, on ports of its own, which ends with this process.

    Attributes:
        uri: Its address.
    """

    def __init__(self, directory: Path, programs: Path) -> None:
        """Write the settings of a server; skips the test where the package is not installed.

        Args:
            directory: Takes all that it stores.
            programs: Takes the program, unpacked, for all servers of this run of the tests.
        """
        milvus = pytest.importorskip("milvus", reason="the package milvus is not installed")
        made_once(programs, lambda path: milvus._initialize_data_files(str(path)))
        config = milvus.MilvusServerConfig(data_dir=str(directory))
        ports = [name for name in config.configurable_items if name.endswith("_port")]
        *free, peers, self._health_port = _free_ports(len(ports) + 2)
        config.update(**dict(zip(ports, free, strict=True)))
        config.set("authorization_enabled", True)
        config.set("log.level", "error")
        # Seconds after which a server that was killed is known to have gone: its successor waits.
        config.set("common.session.ttl", 3)
        config.resolve()
        # Without a file of its own, the etcd within takes its usual ports.
        clients, members = (f"http://127.0.0.1:{port}" for port in (config.get("etcd_port"), peers))
        (directory / "etcd.yaml").write_text(
            f"listen-client-urls: {clients}\nadvertise-client-urls: {clients}\n"
            f"listen-peer-urls: {members}\ninitial-advertise-peer-urls: {members}\n"
            f"initial-cluster: default={members}\n"
        )
        self.uri = f"http://127.0.0.1:{config.get('proxy_port')}"
        self._directory = directory
        self._program = programs / "bin" / "milvus"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with all that it stored before, and wait until it answers."""
        log = self._directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, "run", "standalone"],
                cwd=self._directory,
                env={
                    **os.environ,
                    "DEPLOY_MODE": "STANDALONE",
                    "ETCD_CONFIG_PATH": str(self._directory / "etcd.yaml"),
                    "LD_LIBRARY_PATH": str(self._program.parent),
                    "METRICS_PORT": str(self._health_port),
                    "MILVUS_RUN_DIR": str(self._directory / "run"),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # It ends with the tests, however they end.
                preexec_fn=lambda: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        give_up = time.monotonic() + STARTS_WITHIN
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                pytest.fail(f"Milvus did not start: {log.read_text(errors='replace')[-2_000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it do nothing, with all connections open, until it is ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._health_port}/healthz", timeout=5
            ) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, of those that no connection is given by itself."""
    ports = random.sample(range(20_000, 30_000), 10 * count)
    return [port for port in ports if _is_free(port)][:count]


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
