"""A build whose hashes fit its files, and whose files make no sense, is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline_tests.support.commands import assert_one_line, extract_home, retrieval

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow

Tamper = Callable[[Path], None]


def array(value: object) -> Tamper:
    return lambda file: np.save(file, np.array(value), allow_pickle=True)


def raw(data: bytes) -> Tamper:
    return lambda file: file.write_bytes(data) and None


def column(name: str, value: object, stored_as: pa.DataType | None = None) -> Tamper:
    """Give every item this value; bytes of another type stand for those of the column's own."""

    def tamper(file: Path) -> None:
        items = pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()
        field = items.schema.field(name)
        values = pa.array([value] * len(items), stored_as or field.type)
        if stored_as is not None:
            values = pa.Array.from_buffers(field.type, len(items), values.buffers())
        items = items.set_column(items.schema.get_field_index(name), field, values)
        with pa.ipc.new_file(str(file), items.schema) as writer:
            writer.write_table(items)

    return tamper


CASES = {
    "an object": ("vocabulary.npy", array([{"a": 1}])),
    "another shape": ("vocabulary.npy", array(np.zeros((3, 2), np.float32))),
    "words": ("vocabulary.npy", array(["a"])),
    "nothing": ("vocabulary.npy", raw(b"")),
    "half a zip": ("vocabulary.npy", raw(b"PK\x03\x04 and no more")),
    "text that is not UTF-8": ("items.arrow", column("content_id", b"\xff" * 32, pa.binary())),
    "pictures without files": ("items.arrow", column("locations", [])),
    "pictures without pixels": ("items.arrow", column("width", 0)),
    "formats that are missing": ("items.arrow", column("format", None)),
}


@pytest.mark.parametrize(("name", "tamper"), CASES.values(), ids=CASES.keys())
def test_it_is_one_line_for_a_query_and_for_verify(
    tmp_path: Path, name: str, tamper: Tamper
) -> None:
    directory = extract_home(tmp_path / "library")
    file = next(directory.glob(f"home/index/*/*/{name}"))
    build = file.parent
    tamper(file)
    info = json.loads((build / "build.json").read_text())
    info["files"][name] = {"size": file.stat().st_size, "blake3": content_id_of_file(file)}
    (build / "build.json").write_text(json.dumps(info))
    for _ in range(2):
        # The second time, its hashes could be known to be right.
        with pytest.raises(BuildError, match=name):
            assert Build.open(build).vocabulary is not None
    assert_one_line(retrieval(directory, "query", "cat"), name)
    verified = retrieval(directory, "verify")
    assert verified.stdout.startswith(f"BAD  {file}")
    assert_one_line(verified)
