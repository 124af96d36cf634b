import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from retrieval_pipeline.errors import MapError, StoreError
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.latent_map.coordinates import (
    BATCH_ROWS,
    make_map,
    previous_coordinates,
    read_coordinates,
    read_map_info,
    save_map,
)
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Vectors, VectorSpace, normalise
from synthetic.tables import content, random_vectors, write_manifest, write_part

DIM = 16
SPACE = VectorSpace("offline", "r1", DIM, "p")


def built(
    store: Store, vectors: Vectors, *, first: int = 0, encode: EncodeTexts | None = None
) -> Build:
    """A build of these vectors, named 0000.jpg and so on."""
    names = [f"{number:04d}.jpg" for number in range(first, first + len(vectors))]
    write_manifest(store, "a", {name: name for name in names})
    shutil.rmtree(store.embeddings(SPACE), ignore_errors=True)
    write_part(store, SPACE, "a", names, vectors)
    build_index(store, SPACE, ["a"], encode_texts=encode)
    return open_current(store)


def blobs(*sizes: int) -> Vectors:
    centres = np.repeat(np.eye(DIM)[: len(sizes)], sizes, axis=0)
    return normalise(centres + 0.3 * random_vectors(len(centres), DIM, seed=4))


def words_on_axes(texts: Sequence[str]) -> Vectors:
    """Words near nothing, but for two: "dog" is the first axis, "flower" the second."""
    vectors = np.zeros((len(texts), DIM), np.float32)
    vectors[:, -1] = 1
    for axis, word in enumerate(("dog", "flower")):
        vectors[texts.index(word)] = np.eye(DIM)[axis]
    return vectors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_a_map_has_a_place_a_cluster_and_a_name_for_every_image(store: Store) -> None:
    build = built(store, blobs(40, 30), encode=words_on_axes)
    latent = make_map(build, clusters=2)
    assert latent.coordinates.shape == (70, 3)
    assert latent.members.tolist() == [0] * 40 + [1] * 30
    assert [(each.name, each.images) for each in latent.info.clusters] == [
        ("dog", 40),
        ("flower", 30),
    ]
    # The two groups differ along the first axis.
    first = latent.coordinates[:, 0]
    assert max(first[:40].max(), first[40:].max()) > 0 > min(first[:40].min(), first[40:].min())
    assert abs(np.sign(first[:40]).mean()) == 1
    assert latent.info.explained[0] > 0.5


def test_the_batches_leave_no_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    build = built(store, blobs(40, 30))
    assert BATCH_ROWS > 70
    whole = make_map(build)
    monkeypatch.setattr("retrieval_pipeline.latent_map.coordinates.BATCH_ROWS", 11)
    assert make_map(build).coordinates == pytest.approx(whole.coordinates, abs=1e-5)


def test_without_a_vocabulary_clusters_are_numbered(store: Store) -> None:
    latent = make_map(built(store, blobs(20, 10)), clusters=2)
    assert [each.name for each in latent.info.clusters] == ["cluster 1", "cluster 2"]


def test_a_map_is_read_as_it_was_saved(store: Store, tmp_path: Path) -> None:
    build = built(store, blobs(20, 10))
    latent = make_map(build)
    save_map(latent, tmp_path / "m")
    assert read_map_info(tmp_path / "m") == latent.info
    table = read_coordinates(tmp_path / "m")
    assert table["content_id"].to_pylist() == build.items["content_id"].to_pylist()
    assert np.array_equal(table["y"].to_numpy(), latent.coordinates[:, 1])
    with np.load(tmp_path / "m" / "basis.npz") as basis:
        vectors = build.vectors(np.arange(30))
        places = (vectors - basis["mean"]) @ basis["components"].T
    assert places == pytest.approx(latent.coordinates, abs=1e-5)


def test_a_map_of_slightly_changed_data_lies_as_the_one_before_and_says_how_far_it_moved(
    store: Store, tmp_path: Path
) -> None:
    vectors = blobs(60, 40, 20)
    first = make_map(built(store, vectors))
    assert first.info.drift is None
    save_map(first, tmp_path / "m")
    before = read_coordinates(tmp_path / "m")
    again = make_map(built(store, vectors), previous=before)
    assert again.info.drift == pytest.approx(0, abs=1e-5)
    mirrored = before.set_column(1, "x", [np.negative(before["x"].to_numpy())])
    kept = make_map(built(store, vectors[5:], first=5), previous=mirrored)
    assert kept.info.drift is not None
    assert 0 < kept.info.drift < 0.2
    assert np.corrcoef(kept.coordinates[:, 0], -first.coordinates[5:, 0])[0, 1] > 0.99


def test_the_map_before_is_the_builds_own_or_else_the_last_one_that_is_whole(
    store: Store,
) -> None:
    def named(letter: str) -> str:
        return f"20250101T101010Z-0123abc{letter}"

    assert previous_coordinates(store, named("b")) is None
    for age, (letter, count) in enumerate({"c": 10, "b": 11, "d": 12, "a": 13, "e": 14}.items()):
        save_map(make_map(built(store, blobs(count))), store.map(named(letter)))
        os.utime(store.map(named(letter)), (age, age))
    (store.map(named("e")) / "coordinates.parquet").write_bytes(b"damaged")
    (store.map(named("a")) / "coordinates.parquet").unlink()
    for letter, age in (("e", 4), ("a", 3)):
        os.utime(store.map(named(letter)), (age, age))
    assert len(previous_coordinates(store, named("b")) or ()) == 11
    assert len(previous_coordinates(store, named("f")) or ()) == 12


def test_any_beginning_of_the_order_covers_the_map(store: Store) -> None:
    latent = make_map(built(store, random_vectors(600, DIM)))
    order = latent.from_coarse_to_fine()
    assert len(set(order.tolist())) == len(order)
    flat = latent.coordinates[:, :2]
    low, extent = flat.min(axis=0), np.ptp(flat, axis=0)

    def quarters(rows: np.ndarray) -> set[tuple[int, int]]:
        cells = np.minimum((flat[rows] - low) / extent * 4, 3).astype(int)
        return {(int(x), int(y)) for x, y in cells}

    assert quarters(order[:16]) == quarters(np.arange(600))
    # Of its quadrant, the first one is the nearest to the centre of its cluster.
    unit = (flat - low) / extent >= 0.5
    quadrant = (unit == unit[order[0]]).all(axis=1)
    assert latent.distances[order[0]] == latent.distances[quadrant].min()


def test_fewer_than_three_images_are_no_map(store: Store) -> None:
    build = built(store, blobs(4))
    with pytest.raises(MapError, match="at least 3 images; here are 2"):
        make_map(build, numbers=np.array([0, 3]))
    assert make_map(build, numbers=np.array([0, 2, 3])).info.items == 3


def test_damaged_maps_are_refused_with_the_file_and_what_to_do(
    store: Store, tmp_path: Path
) -> None:
    directory = tmp_path / "m"
    latent = make_map(built(store, blobs(20, 10)))
    save_map(latent, directory)
    table = pq.read_table(directory / "coordinates.parquet")
    spoilt = table["x"].to_numpy().copy()
    spoilt[7] = np.nan
    index = table.schema.get_field_index("x")
    spoilt_table = table.set_column(index, table.schema.field("x"), [spoilt])
    pq.write_table(spoilt_table, directory / "coordinates.parquet")
    with pytest.raises(StoreError, match=r"coordinates\.parquet: holds .* not finite: remove"):
        read_coordinates(directory)
    (directory / "map.json").write_text('{"format": 1}')
    with pytest.raises(MapError, match=r"map\.json: damaged .* run `retrieval index`"):
        read_map_info(directory)
    (directory / "map.json").unlink()
    with pytest.raises(MapError, match=r"map\.json: No such file"):
        read_map_info(directory)


def test_verify_reads_the_maps(store: Store) -> None:
    build = built(store, blobs(20, 10))
    directory = store.map(build.path.name)
    save_map(make_map(build), directory)
    for name in ("map.html", "map.png"):
        (directory / name).touch()

    def problems() -> list[str]:
        return [finding.problem for finding in verify(store) if finding.problem]

    assert problems() == []
    info = read_map_info(directory)
    few = info.model_copy(update={"clusters": info.clusters[:1]})
    (directory / "map.json").write_text(few.model_dump_json())
    assert len(info.clusters) > 1
    assert len(problems()) == 1
    assert "does not match map.json" in problems()[0]
    assert content("0000.jpg") in read_coordinates(directory)["content_id"].to_pylist()
