"""Commands in processes that are forked from one that has imported the package already.

They are the commands as a person starts them, with arguments, a working directory, an environment,
three streams and an exit code of their own, but without the second that imports take.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from retrieval_pipeline.cli.main import COMMANDS

# Imported once. Threads do not survive a fork: those that these modules start, of BLAS, know that.
PRELOADED = [
    "pytest",  # the main module of the tests, which `multiprocessing` imports
    "jinja2",
    "onnx",
    "pandas",
    "rich.progress",
    "sklearn.cluster",
    "tokenizers",
    "torch",
    "retrieval_pipeline.cli.main",
    *(f"retrieval_pipeline.cli.commands.{name}" for name in COMMANDS),
    "retrieval_pipeline.config.validation",
    "retrieval_pipeline.encoders.offline",
    "retrieval_pipeline.latent_map.write",
    "retrieval_pipeline.maintenance.verify",
    "retrieval_pipeline.pipeline.run",
    "retrieval_pipeline.search.searcher",
    "retrieval_pipeline_tests.support.preloaded",
]

# Where the vectors of sentences are that every model encodes; conftest.py sets it.
sentences: Path | None = None


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_forked(
    directory: Path,
    arguments: tuple[str | bytes, ...],
    environment: Mapping[str, str],
    *,
    input: bytes = b"",
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run `retrieval` with these arguments in a directory; see `subprocess.run`.

    Args:
        directory: Becomes the working directory.
        arguments: Those after the name of the command.
        environment: All variables.
        input: What stdin holds.
        timeout: Seconds.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        streams = [Path(temporary, name) for name in ("in", "out", "err")]
        for path in streams:
            path.write_bytes(input if path.name == "in" else b"")
        process = _context().Process(
            target=_command, args=(directory, arguments, dict(environment), streams, sentences)
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(["retrieval", *arguments], timeout)
        _, output, errors = (path.read_bytes() for path in streams)
        return subprocess.CompletedProcess(
            ["retrieval", *arguments], process.exitcode or 0, output, errors
        )


def _command(
    directory: Path,
    arguments: tuple[str | bytes, ...],
    environment: dict[str, str],
    streams: list[Path],
    sentences: Path | None,
) -> None:
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["retrieval", *map(os.fsdecode, arguments)]

    from retrieval_pipeline.cli.main import main
    from retrieval_pipeline_tests.support.remembered import remember_sentences

    if sentences is not None:
        remember_sentences(sentences, pytest.MonkeyPatch())
    main()
