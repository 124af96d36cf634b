import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_pipeline.encoders.checkpoint import BLOCK_BYTES, find_checkpoint
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline_tests.support.hub import commit_of, serve_hub
from synthetic.checkpoints import make_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pickled(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with its weights in the old format."""
    directory = tmp_path_factory.mktemp("pickled") / "clip"
    shutil.copytree(clip, directory)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    return directory


class Machine:
    """A machine with a hub cache of its own; huggingface_hub reads its settings when imported."""

    def __init__(self, home: Path, hub: str = "http://127.0.0.1:9") -> None:
        self.environment = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": hub}

    def find(self, model: str, revision: str | None = None, *, weights: bool = False) -> list[str]:
        """Return the revision and the files that find_checkpoint finds, or its error."""
        code = (
            "from retrieval_pipeline.encoders.checkpoint import find_checkpoint\n"
            "from retrieval_pipeline.errors import EncoderError\n"
            "try:\n"
            f"    found = find_checkpoint({model!r}, {revision!r}, weights={weights!r})\n"
            "    print(found.revision, *sorted(p.name for p in found.directory.iterdir()))\n"
            "except EncoderError as error:\n"
            "    print(error)\n"
        )
        command = [sys.executable, "-c", code]
        run = subprocess.run(
            command, check=True, capture_output=True, text=True, env=self.environment
        )
        self.progress = run.stderr
        return run.stdout.split()

    def error(self, model: str, revision: str | None = None) -> str:
        return " ".join(self.find(model, revision))


def test_a_directory_is_known_by_its_files(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    original = find_checkpoint(str(clip), None, weights=True)
    assert find_checkpoint(str(copy), original.revision, weights=True).directory == copy
    (copy / "README.md").write_text("says nothing about vectors")
    assert find_checkpoint(str(copy), None, weights=True).revision == original.revision


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_another_configuration_is_another_revision(clip: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    revision = find_checkpoint(str(copy), None, weights=True).revision
    (copy / name).write_text((copy / name).read_text() + "\n")
    with pytest.raises(EncoderError, match=f"has revision .* now, not {revision}: .*index again"):
        find_checkpoint(str(copy), revision, weights=True)


@pytest.mark.parametrize("where", [0, -1])
def test_other_weights_are_another_revision(clip: Path, tmp_path: Path, where: int) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes() + bytes(40 * BLOCK_BYTES))
    (copy / "model.safetensors").write_bytes(weights)
    revision = find_checkpoint(str(copy), None, weights=True).revision
    weights[where] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert find_checkpoint(str(copy), None, weights=True).revision != revision


def test_weights_in_several_files_are_found_when_all_are_there(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (copy / "model.safetensors").rename(copy / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EncoderError, match=r"has no model\.safetensors"):
        find_checkpoint(str(copy), None, weights=True)
    (copy / shards[1]).write_bytes(b"more")
    revision = find_checkpoint(str(copy), None, weights=True).revision
    (copy / shards[1]).write_bytes(b"MORE")
    assert find_checkpoint(str(copy), None, weights=True).revision != revision


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, pickled: Path) -> None:
    (tmp_path / "file").touch()
    for model, message in (
        (str(tmp_path), r"is not a checkpoint: it has no config\.json"),
        (str(tmp_path / "missing"), "is not a directory: give that of a checkpoint"),
        (str(tmp_path / "file"), "is not a directory"),
        (
            str(pickled),
            r"has no model\.safetensors, only pytorch_model\.bin, which could run code",
        ),
        ("two words", r'is neither a directory nor a hub id such as "openai/'),
    ):
        with pytest.raises(EncoderError, match=message):
            find_checkpoint(model, None, weights=True)


def test_a_broken_configuration_is_named(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    checkpoint = find_checkpoint(str(copy), None, weights=True)
    for contents in ("{", "[1]"):
        (copy / "config.json").write_text(contents)
        with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
            checkpoint.read_json("config.json")


def test_a_hub_model_is_fetched_as_far_as_needed_and_then_needs_no_hub(
    clip: Path, tmp_path: Path
) -> None:
    with serve_hub("some/clip", {"main": clip}) as hub:
        machine = Machine(tmp_path, hub)
        revision, *files = machine.find("some/clip")
        assert revision == commit_of("main")
        assert "config.json" in files
        assert "model.safetensors" not in files
        found = machine.find("some/clip", weights=True)
        assert found[0] == revision
        assert "model.safetensors" in found
        assert "Fetching" in machine.progress
    offline = Machine(tmp_path)
    assert offline.find("some/clip", weights=True) == found
    assert offline.find("some/clip", revision, weights=True) == found


def test_a_push_to_the_hub_does_not_change_a_model_that_is_in_the_cache(
    clip: Path, tmp_path: Path
) -> None:
    with serve_hub("some/clip", {"main": clip, "v2": clip}) as hub:
        machine = Machine(tmp_path, hub)
        before = machine.find("some/clip", weights=True)
        assert machine.find("some/clip", "v2", weights=True)[0] == commit_of("v2")
        assert machine.find("some/clip", commit_of("v2"), weights=True)[0] == commit_of("v2")
    with serve_hub("some/clip", {"v2": clip}) as hub:
        assert Machine(tmp_path, hub).find("some/clip", weights=True) == before


def test_pickled_weights_are_replaced_by_the_hubs_own_conversion(
    clip: Path, pickled: Path, tmp_path: Path
) -> None:
    revisions = {"main": pickled, "refs/pr/1": clip, "refs/pr/2": clip}
    requests = {1: "a-stranger", 2: "SFconvertbot"}
    with serve_hub("some/clip", revisions, requests) as hub:
        machine = Machine(tmp_path, hub)
        assert machine.find("some/clip")[0] == commit_of("refs/pr/2")
        found = machine.find("some/clip", weights=True)
        assert found[0] == commit_of("refs/pr/2")
    assert Machine(tmp_path).find("some/clip", weights=True) == found


def test_pickled_weights_without_a_conversion_are_refused(pickled: Path, tmp_path: Path) -> None:
    with serve_hub("some/clip", {"main": pickled}, {1: "a-stranger"}) as hub:
        error = Machine(tmp_path, hub).error("some/clip")
    assert "has no model.safetensors, only pytorch_model.bin, which could run code" in error


def test_what_the_hub_does_not_have_is_named(clip: Path, tmp_path: Path) -> None:
    with serve_hub("some/clip", {"main": clip}) as hub:
        machine = Machine(tmp_path, hub)
        assert 'model "no/such" is neither a directory nor a model of the hub' in machine.error(
            "no/such"
        )
        assert 'has no revision "v9" on the hub' in machine.error("some/clip", "v9")


def test_without_a_hub_the_error_names_the_three_ways_out(tmp_path: Path) -> None:
    unreachable = Machine(tmp_path)
    forbidden = Machine(tmp_path)
    forbidden.environment["HF_HUB_OFFLINE"] = "1"
    for machine in (unreachable, forbidden):
        error = machine.error("openai/clip-vit-large-patch14-336")
        assert "the hub cannot be reached" in error
        assert "give the directory of a checkpoint as the model" in error
        assert "set HF_HOME to a cache that holds it" in error
        assert 'use model = "offline"' in error
