"""Damage of every kind to everything that is read: a typed error or a right answer, nothing else.

Each reader gets sound files with bytes overwritten, cut out, repeated or cut off, mostly where the
headers are. The examples are the same in every run.
"""

import json
import tomllib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import BuildError, RetrievalError, SettingsError, StoreError
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.transform import Decoded, ImageTransform
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.build_info import read_info
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements, read_votes_file
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_space, read_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.library import FORMATS
from synthetic.tables import content, random_vectors, write_manifest, write_part

SPACE = VectorSpace("test/model", "r1", 8, "p")
NAMES = "abcdef"
TRANSFORM = ImageTransform(16, (16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3)

fuzzed = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw what to do to a file; most of it near its beginning or its end."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "write", "cut", "repeat"]),
                st.one_of(st.integers(0, 80), st.integers(-300, -1), st.integers(0, 1 << 30)),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1,
            max_size=4,
        )
    )
    length = draw(st.one_of(st.none(), st.none(), st.integers(0, 1 << 30)))

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        for what, at, new in edits:
            if not changed:
                break
            at %= len(changed)
            match what:
                case "set":
                    changed[at] = new[0]
                case "write":
                    changed[at : at + len(new)] = new
                case "cut":
                    del changed[at : at + len(new)]
                case _:
                    changed[at:at] = changed[at : at + 4 * len(new)]
        return bytes(changed if length is None else changed[: length % (len(changed) + 1)])

    return damage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("fuzz"))
    write_manifest(store, "a", {f"{name}.jpg": name for name in NAMES})
    write_part(store, SPACE, "a", NAMES, random_vectors(len(NAMES), SPACE.dim))
    build_index(store, SPACE, ["a"])
    add_judgements(store, "taste", [(content(name), name < "c") for name in NAMES])
    return store


def typed(error: type[RetrievalError], read: Callable[[], object]) -> None:
    """Read; nothing but this error may come of it, with a message of one line."""
    try:
        read()
    except error as found:
        assert str(found)
        assert len(str(found)) < 2_000


# Images


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(TRANSFORM, Limits(memory_mb=400, seconds=20), workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    files = {}
    for format in FORMATS:
        buffer = BytesIO()
        Image.fromarray(noise).save(buffer, format)
        files[format] = buffer.getvalue()
    return files


@fuzzed
@given(format=st.sampled_from(FORMATS), damage=damages())
def test_a_damaged_picture_is_decoded_or_typed(
    pool: DecodePool,
    pictures: dict[str, bytes],
    store: Store,
    format: str,
    damage: Callable[[bytes], bytes],
) -> None:
    file = store.home / "picture"
    file.write_bytes(damage(pictures[format]))
    ((_, outcome),) = pool.map([Job(str(file))])
    if isinstance(outcome, Decoded):
        assert outcome.pixels.shape == (16, 16, 3)
    else:
        assert isinstance(outcome, ImageError)


# Tables


def rows_or_error(path: Path, schema: pa.Schema, sound: pa.Table) -> None:
    """A table that can be read after all must hold what was written."""
    try:
        found = read_table(path, schema)
    except StoreError as error:
        assert path.name in str(error)
    else:
        assert found.equals(sound)


@fuzzed
@given(damage=damages())
def test_a_damaged_manifest_is_refused_and_never_misread(
    store: Store, tmp_path_factory: pytest.TempPathFactory, damage: Callable[[bytes], bytes]
) -> None:
    sound = store.manifest("a")
    path = store.home / "manifest.parquet"
    path.write_bytes(damage(sound.read_bytes()))
    rows_or_error(path, MANIFEST, read_table(sound, MANIFEST))


@fuzzed
@given(damage=damages())
def test_damaged_embeddings_are_refused_and_never_misread(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    sound = store.parts(SPACE)[0]
    schema = embedding_schema(SPACE.dim)
    path = store.home / "part.parquet"
    path.write_bytes(damage(sound.read_bytes()))
    rows_or_error(path, schema, read_table(sound, schema))
    typed(StoreError, lambda: read_space(path))


@fuzzed
@given(damage=damages())
def test_damaged_votes_are_refused_and_never_misread(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    votes = read_judgements(store, "taste")
    damaged = store.judgements("damaged")
    damaged.write_bytes(damage(store.judgements("taste").read_bytes()))
    try:
        assert read_judgements(store, "damaged") == votes
    except StoreError as error:
        assert "it is kept" in str(error)


# Builds


@fuzzed
@given(damage=damages())
def test_a_damaged_build_description_is_refused_before_anything_is_loaded(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    build = store.current_build()
    assert build is not None
    info = build / "build.json"
    sound = info.read_bytes()
    info.write_bytes(damage(sound))
    try:
        typed(BuildError, lambda: Build.open(build))
    finally:
        info.write_bytes(sound)


@fuzzed
@given(
    name=st.sampled_from(["blocks/*.arrow", "segments/*/vectors.npy", "*/runs.npy"]),
    damage=damages(),
)
def test_a_damaged_file_of_a_build_is_never_loaded(
    store: Store, name: str, damage: Callable[[bytes], bytes]
) -> None:
    build = store.current_build()
    assert build is not None
    file = next(build.parent.glob(name))
    sound = file.read_bytes()
    damaged = damage(sound)
    file.write_bytes(damaged)
    try:
        if damaged == sound:
            Build.open(build)
        else:
            with pytest.raises(BuildError, match=file.name):
                Build.open(build)
    finally:
        file.write_bytes(sound)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@fuzzed
@given(data=st.data())
def test_a_build_description_with_other_values_is_refused(
    store: Store, data: st.DataObject
) -> None:
    build = store.current_build()
    assert build is not None
    info = build / "build.json"
    sound = info.read_bytes()
    facts = json.loads(sound)
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(JSON)
    info.write_text(json.dumps(facts))
    try:
        typed(BuildError, lambda: Build.open(build))
    finally:
        info.write_bytes(sound)


@pytest.mark.parametrize("components", [True, 0, -1, 5, 10**9])
def test_a_description_with_another_length_of_vectors_is_refused_before_annoy_sees_it(
    store: Store, components: int
) -> None:
    build = store.current_build()
    assert build is not None
    info = build / "build.json"
    sound = info.read_bytes()
    info.write_text(json.dumps(json.loads(sound) | {"tree_components": components}))
    try:
        with pytest.raises(BuildError, match="run `retrieval index`"):
            Build.open(build)
    finally:
        info.write_bytes(sound)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "NaN", "1e999", "9" * 9_999])
def test_a_description_that_strains_a_parser_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "build.json").write_text(text)
    with pytest.raises(BuildError, match="damaged"):
        read_info(tmp_path)


@fuzzed
@given(text=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_pointer_names_a_build_or_is_refused(store: Store, text: bytes) -> None:
    other = Store(store.home / "other")
    other.current_file.parent.mkdir(parents=True, exist_ok=True)
    other.current_file.write_bytes(text)
    typed(StoreError, other.current_build)


# What people write


SETTINGS = b"""\
home = "home"
model = "offline"
revision = "main"
device = "cpu"
precision = "auto"
max_shrink = 0.5
images = { max_megapixels = 300, max_megabytes = 1000, timeout_seconds = 60 }
index = { recall = 0.99 }
[[sources]]
name = "pictures"
path = "pictures"
extensions = [".jpg"]
exclude = ["*/thumbs/*"]
follow_symlinks = false
"""
VALUES = (
    *("inf", "-inf", "nan", "0", "-1", "1e308", "9223372036854775808", "true", "1979-05-27"),
    *("[]", "{}", "[[[]]]", '[""]', '""', '".."', '"/"', '"~nobody-of-this-name/x"'),
    *('"\\u0000"', '"\\u202e\\n"'),
)


def load(path: Path) -> Limits | None:
    """Load settings as commands do, and compute with them."""
    found = load_settings(path)
    return Limits.of(found.images)


@fuzzed
@given(damage=damages())
def test_damaged_settings_are_refused_in_a_line_each(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    file = store.home / "retrieval.toml"
    file.write_bytes(damage(SETTINGS))
    typed(SettingsError, lambda: load(file))


KEYS = [line.split(b" =")[0].decode() for line in SETTINGS.splitlines() if b" =" in line]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("key", [*KEYS, "max_megapixels", "timeout_seconds", "recall"])
def test_settings_with_odd_values_are_used_or_refused(tmp_path: Path, key: str, value: str) -> None:
    lines = SETTINGS.decode().splitlines()
    if key in KEYS:
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    else:
        table = "index" if key == "recall" else "images"
        lines = [
            f"{table} = {{ {key} = {value} }}" if line.startswith(f"{table} =") else line
            for line in lines
        ]
    file = tmp_path / "retrieval.toml"
    file.write_text("\n".join(lines))
    tomllib.loads("\n".join(lines))
    typed(SettingsError, lambda: load(file))


def test_settings_that_strain_a_parser_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text("a = " + "[" * 50_000)
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(file)


@fuzzed
@given(value=JSON, damage=damages())
def test_a_file_of_votes_is_counted_whole_or_refused(
    store: Store, value: object, damage: Callable[[bytes], bytes]
) -> None:
    file = store.home / "votes.json"
    sound = json.dumps([{"content_id": "0" * 32, "liked": True}] * 3).encode()
    for data in (damage(sound), json.dumps([value, {"path": value, "liked": value}]).encode()):
        file.write_bytes(data)
        typed(RetrievalError, lambda: read_votes_file(file, lambda paths: {}))
