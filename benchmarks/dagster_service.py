"""What the benchmarks of Dagster share: a made-up library, services over it, and their pages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from PIL import Image
from playwright.sync_api import Browser, Request, sync_playwright

from retrieval_pipeline.config.template import settings_text

ROOT = Path(__file__).parents[1]
# Until the requests of a page have begun, and until the last one may be answered.
PAGE_SECONDS, ANSWER_SECONDS = 8.0, 60.0


def made(folder: Path, sources: int, files: int) -> Path:
    """Write small pictures, each of another colour, and a settings file; return the file."""
    pairs = []
    number = 0
    for source in range(sources):
        directory = folder / "pictures" / f"source{source:04}"
        directory.mkdir(parents=True)
        pairs.append((directory.name, directory))
        for file in range(files):
            number += 1
            colour = (number % 256, number // 256 % 256, number // 65_536)
            Image.new("RGB", (48, 32), colour).save(directory / f"{file}.png")
    settings = folder / "retrieval.toml"
    settings.write_text(settings_text(pairs, model="offline", home="home"))
    return settings


def made_home(folder: Path) -> Path:
    """Make a home of Dagster with the settings that are shipped, and return it."""
    home = folder / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    return home


@dataclass(frozen=True)
class Service:
    """A service that runs.

    Attributes:
        address: Where it answers.
        process: Its number.
    """

    address: str
    process: int


@contextmanager
def service(file: Path, home: Path, *command: str) -> Iterator[Service]:
    """Run a service of Dagster over a settings file; give it when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workspace = str(ROOT / "workspace.yaml")
    env = {"DAGSTER_HOME": str(home), "RETRIEVAL_CONFIG": str(file), "PYTHONPATH": str(ROOT)}
    with (home / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "-w", workspace, "-p", str(port)],
            env={**os.environ, **env},
            cwd=home,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/server_info").close()
                break
            except OSError:
                time.sleep(0.5)
        yield Service(address, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            # With its daemon and servers, which would go on without it.
            os.killpg(process.pid, signal.SIGKILL)


def until_quiet(home: Path) -> None:
    """Wait until no run of the Dagster of this home is on its way."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        while instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
            time.sleep(1)


def measure_pages(address: str, pages: Mapping[str, str]) -> None:
    """Open each page, a path by its name, in Chromium, twice; print its slowest requests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, path in pages.items():
            first, again = (_slowest(browser, f"{address}/{path}") for _ in range(2))
            load = os.getloadavg()[0]
            print(f"  {name}: {first}, again {again} (load {load:.0f})", flush=True)
        browser.close()


def _slowest(browser: Browser, address: str) -> str:
    """Open a page; return the seconds and the name of its slowest request."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    took: dict[str, float] = {}
    begun: dict[Request, float] = {}

    def begin(request: Request) -> None:
        if request.url.endswith("/graphql") or "/graphql?" in request.url:
            begun[request] = time.monotonic()

    def end(request: Request) -> None:
        if request in begun:
            what = json.loads(request.post_data or "{}").get("operationName", "?")
            seconds = time.monotonic() - begun.pop(request)
            took[what] = max(took.get(what, 0.0), seconds)

    page.on("request", begin)
    page.on("requestfinished", end)
    page.goto(address, timeout=120_000)
    deadline = time.monotonic() + ANSWER_SECONDS
    page.wait_for_timeout(PAGE_SECONDS * 1_000)
    while begun and time.monotonic() < deadline:
        page.wait_for_timeout(500)
    page.close()
    slowest = max(took, key=lambda each: took[each], default="none")
    late = f", {len(begun)} not answered in {ANSWER_SECONDS:.0f} s" if begun else ""
    return f"{took.get(slowest, 0):.2f} s ({slowest}{late})"
