import runpy
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from retrieval_pipeline.cli.main import cli

DOCS = Path(__file__).parents[2] / "docs"


def test_the_manual_page_is_that_of_the_commands() -> None:
    page = (DOCS / "retrieval.1").read_text("utf-8")
    again = "write it anew: python docs/man_page.py"
    assert page == runpy.run_path(str(DOCS / "man_page.py"))["man_page"](), again
    for name in cli.list_commands(click.Context(cli)):
        assert f".SS retrieval {name}" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not there")
def test_the_manual_page_is_sound_and_shows_texts_as_they_are() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=200n", DOCS / "retrieval.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "retrieval query a dog on grass -k 12" in done.stdout
    assert "Exit codes:" in done.stdout
