"""The whole flow, in process, on real photographs with the offline model."""

import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders import offline
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import (
    BuildError,
    EncoderError,
    SettingsError,
    SourceError,
    Stopped,
    StoreError,
)
from retrieval_pipeline.ingest import embed, quarantine
from retrieval_pipeline.ingest.part_writer import PartWriter
from retrieval_pipeline.maintenance.status import read_status
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.pipeline import run as pipeline
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.checkpoints import make_clip

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(sample_photos: dict[str, Path], tmp_path: Path) -> Path:
    """A directory with a cat, a cup of coffee, a rocket, and a copy of the cat."""
    root = tmp_path / "pictures"
    (root / "more").mkdir(parents=True)
    for name in ("cat", "coffee", "rocket"):
        shutil.copy(sample_photos[name], root / f"{name}{sample_photos[name].suffix}")
    shutil.copy(sample_photos["cat"], root / "more" / "again.png")
    return root


@pytest.fixture
def settings(pictures: Path, tmp_path: Path) -> Settings:
    return settings_of(tmp_path / "home", pictures=pictures)


def test_directories_in_answers_out(settings: Settings) -> None:
    report = index_sources(settings)
    assert report.manifests[0].files == 4
    assert (report.embeddings[0].embedded, report.embeddings[0].duplicates) == (3, 1)
    assert report.build.info.items == 3
    searcher = Searcher.open(settings)
    best = {
        text: searcher.search(Query(text=text), k=1)[0]
        for text in ("a cat", "a cup of coffee", "a rocket launch")
    }
    assert [hit.path.stem for hit in best.values()] == ["cat", "coffee", "rocket"]
    assert [place.path for place in best["a cat"].locations] == ["cat.png", "more/again.png"]
    assert not any(finding.problem for finding in verify(Store(settings.home)))


def test_a_picture_finds_itself(settings: Settings, pictures: Path) -> None:
    index_sources(settings)
    hit = Searcher.open(settings).search(Query(images=(pictures / "rocket.jpg",)), k=1)[0]
    assert hit.path.name == "rocket.jpg"
    assert hit.score == pytest.approx(1, abs=1e-3)


def test_pictures_of_any_name_are_found_and_can_be_opened(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    names = [
        "caf\u00e9",
        "cafe\u0301",
        "[a]*?",
        "new\nline",
        "back\\slash",
        "x" * 251,
        "\udcff\udcfe",
    ]
    for number, name in enumerate(names):
        Image.new("RGB", (30 + number, 20), (number * 30, 99, 0)).save(str(root / f"{name}.png"))
    settings = settings_of(tmp_path / "home", pictures=root)
    assert index_sources(settings).embeddings[0].embedded == len(names)
    hits = Searcher.open(settings).search(Query(text="a colour"), k=20)
    assert {hit.path.stem for hit in hits} == set(names)
    assert all(Image.open(str(hit.path)).height == 20 for hit in hits)
    assert not any(finding.problem for finding in verify(Store(settings.home)))


def test_a_second_run_loads_no_model_and_publishes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index_sources(settings)

    def never(*_: object) -> None:
        raise AssertionError("there is nothing to encode")

    monkeypatch.setattr(pipeline, "load_settings_encoder", never)
    second = index_sources(settings)
    assert second.embeddings[0].known == 3
    assert second.embeddings[0].embedded == 0
    assert second.build.build == first.build.build
    assert not second.build.published


def test_a_model_that_changes_while_it_is_loaded_is_refused(tmp_path: Path) -> None:
    model = make_clip(tmp_path / "clip")
    settings = Settings(home=tmp_path / "home", model=str(model), device="cpu")
    space = describe_encoder(settings).space
    assert load_settings_encoder(settings, space).space == space
    make_clip(model, seed=1)
    with pytest.raises(EncoderError, match=f"not {space.revision}"):
        load_settings_encoder(settings, space)


def test_only_new_content_is_encoded(settings: Settings, pictures: Path) -> None:
    index_sources(settings)
    (pictures / "rocket.jpg").rename(pictures / "moved.jpg")
    Image.new("RGB", (50, 40), "red").save(pictures / "new.png")
    report = index_sources(settings)
    assert report.embeddings[0].embedded == 1
    assert report.build.info.items == 4


def test_images_that_cannot_be_used_are_quarantined_with_reasons_and_nothing_else(
    settings: Settings, pictures: Path
) -> None:
    (pictures / "text.jpg").write_text("this is no picture")
    (pictures / "empty.png").touch()
    cut = (pictures / "rocket.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    report = index_sources(settings).embeddings[0]
    assert (report.embedded, report.quarantined, report.newly_quarantined) == (3, 3, 3)
    assert report.files == report.embedded + report.known + report.duplicates + report.quarantined
    space = describe_encoder(settings).space
    rows = read_quarantine(Store(settings.home), space, "pictures").to_pylist()
    assert {row["path"]: row["reason"] for row in rows} == {
        "cut.jpg": "truncated",
        "empty.png": "not_an_image",
        "text.jpg": "not_an_image",
    }
    assert all(row["attempts"] == 1 for row in rows)


def test_quarantined_images_are_tried_again_only_on_request_or_by_other_software(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "text.jpg").write_text("this is no picture")
    space = describe_encoder(settings).space

    def attempts() -> int:
        rows = read_quarantine(Store(settings.home), space, "pictures").to_pylist()
        return int(rows[0]["attempts"])

    index_sources(settings)
    index_sources(settings)
    assert attempts() == 1
    index_sources(settings, retry_quarantined=True)
    assert attempts() == 2
    monkeypatch.setattr(quarantine, "software", lambda: "another version")
    index_sources(settings)
    assert attempts() == 3
    index_sources(settings)
    assert attempts() == 3


def test_a_quarantined_file_that_is_mended_or_removed_leaves_the_table(
    settings: Settings, pictures: Path
) -> None:
    broken = pictures / "broken.jpg"
    broken.write_text("this is no picture")
    index_sources(settings)
    broken.unlink()
    assert index_sources(settings).embeddings[0].quarantined == 0
    space = describe_encoder(settings).space
    assert len(read_quarantine(Store(settings.home), space, "pictures")) == 0


def test_a_stopped_run_keeps_its_work_and_the_next_goes_on(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "BATCH", 1)
    stop = threading.Event()
    publish = PartWriter.add

    def add_then_stop(self: PartWriter, *args: object) -> None:
        publish(self, *args)  # type: ignore[arg-type]
        stop.set()

    monkeypatch.setattr(PartWriter, "add", add_then_stop)
    with pytest.raises(Stopped, match="1 images are kept"):
        index_sources(settings, stop=stop)
    monkeypatch.undo()
    assert index_sources(settings).embeddings[0].embedded == 2


def test_a_source_that_fails_keeps_its_images_and_the_others_go_on(
    settings: Settings, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The decode workers are those of the run: no source starts its own.
    monkeypatch.setattr(embed, "DecodePool", None)
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (50, 40), "blue").save(other / "blue.png")
    both = settings_of(settings.home, pictures=pictures, other=other)
    index_sources(both)
    pictures.rename(tmp_path / "unplugged")
    Image.new("RGB", (50, 40), "green").save(other / "green.png")
    report = index_sources(both)
    assert list(report.failures) == ["pictures"]
    assert "does not exist" in str(report.failures["pictures"])
    assert report.build.info.items == 5


def test_an_unplugged_source_keeps_its_images_also_through_a_change_of_model(
    settings: Settings, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (50, 40), "blue").save(other / "blue.png")
    both = settings_of(settings.home, pictures=pictures, other=other)
    before = index_sources(both).build
    pictures.rename(tmp_path / "unplugged")
    changed = both.model_copy(update={"precision": "reference"})
    with pytest.raises(SourceError, match=r"pictures.*needed for the change of model"):
        index_sources(changed, only=["other"])
    assert Store(settings.home).current_build() == before.build
    (tmp_path / "unplugged").rename(pictures)
    assert index_sources(changed, only=["other"]).build.info.items == before.info.items


def test_files_that_go_while_they_are_indexed_are_left_out_without_a_trace(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl = pipeline.update_manifest

    def crawl_then_remove(*arguments: object, **options: object) -> object:
        report = crawl(*arguments, **options)  # type: ignore[arg-type]
        (pictures / "rocket.jpg").unlink(missing_ok=True)
        return report

    monkeypatch.setattr(pipeline, "update_manifest", crawl_then_remove)
    first = index_sources(settings).embeddings[0]
    assert (first.embedded, first.quarantined, first.left) == (2, 0, 1)
    second = index_sources(settings)
    assert (second.manifests[0].removed, second.embeddings[0].left) == (1, 0)


def test_a_source_given_alone_leaves_the_others_in_the_index(
    settings: Settings, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    both = settings_of(settings.home, pictures=pictures, other=other)
    index_sources(both)
    Image.new("RGB", (50, 40), "green").save(other / "green.png")
    assert index_sources(both, only=["other"]).build.info.sources == {"pictures": 4, "other": 1}


def test_no_source_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no sources"):
        index_sources(settings_of(tmp_path / "home"))
    with pytest.raises(SettingsError, match='no source "x"'):
        index_sources(settings_of(tmp_path / "home", a=tmp_path), only=["x"])


def test_a_missing_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        index_sources(settings_of(tmp_path / "home", a=tmp_path / "nowhere"))


def test_a_directory_without_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="nothing to index"):
        index_sources(settings_of(tmp_path / "home", a=tmp_path / "empty"))


def test_a_damaged_manifest_stops_the_run_by_name(settings: Settings) -> None:
    index_sources(settings)
    Store(settings.home).manifest("pictures").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"pictures\.parquet: damaged"):
        index_sources(settings)


def test_the_status_counts_every_image(settings: Settings, pictures: Path) -> None:
    (pictures / "text.jpg").write_text("this is no picture")
    space = describe_encoder(settings).space
    assert "run `retrieval index`" in str(read_status(settings, space).problem)
    index_sources(settings)
    status = read_status(settings, space)
    source = status.sources[0]
    assert (source.files, source.images, source.embedded, source.pending) == (5, 4, 3, 0)
    assert source.quarantined == {"not_an_image": 1}
    assert status.problem is None
    assert len(read_manifest(Store(settings.home), "pictures")) == 5
