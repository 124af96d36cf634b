"""Code in the working directory is never run, whatever command is called from there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_pipeline.processes import child_options, python_command
from retrieval_pipeline_tests.support.web import WebLibrary

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NAMES = ("json", "numpy", "PIL", "pickle", "pyarrow", "blake3", "retrieval_pipeline", "ctypes")
COMMANDS = {
    "status": ["status"],
    "verify": ["verify"],
    "gallery": ["query", "a cat", "--gallery", "gallery.html"],
    "picture": ["query", "--image", "cat.png"],
    "duplicates": ["duplicates"],
    "map": ["map"],
    "index": ["index", "--retry-quarantined"],
    "gc": ["gc"],
}


@pytest.fixture
def trap(tmp_path: Path, sample_photos: dict[str, Path]) -> Path:
    """A folder of pictures that holds modules: whoever imports one leaves a mark."""
    folder = tmp_path / "trap"
    folder.mkdir()
    (folder / "cat.png").write_bytes(sample_photos["cat"].read_bytes())
    for name in NAMES:
        (folder / name).mkdir()
        code = f"open({str(tmp_path / 'mark')!r}, 'a').write(__name__)\n"
        (folder / name / "__init__.py").write_text(code)
    return folder


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_code_of_the_working_directory(
    library: WebLibrary, trap: Path, command: list[str]
) -> None:
    code = "from retrieval_pipeline.cli.main import main; main()"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *command, "--config", str(library.settings_file)],
        cwd=trap,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (trap.parent / "mark").exists()


def test_a_child_gets_no_secrets_and_no_relative_import_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hidden")
    monkeypatch.setenv("PYTHONPATH", f":.:{ROOT}:pictures:")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    around = child_options()
    assert "hidden" not in around["env"].values()
    assert around["env"]["PYTHONPATH"] == str(ROOT)
    assert around["env"]["LC_ALL"] == "C.UTF-8"


def test_a_child_runs_the_code_of_its_parent(trap: Path) -> None:
    command = python_command("retrieval_pipeline.processes", "child_options")
    done = subprocess.run(command, cwd=trap, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (trap.parent / "mark").exists()
