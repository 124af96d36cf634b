"""Sources on an object store: moto's S3 server on the loopback interface, and fsspec's memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_pipeline.cli.text import index_report
from retrieval_pipeline.config import Source, load_settings
from retrieval_pipeline.errors import SettingsError, SourceError
from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import picture
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.ingest.crawl import update_manifest, walk
from retrieval_pipeline.maintenance.status import read_status
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.remote import Remote, RemoteError
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest

Bucket = Callable[[str], str]


@pytest.fixture
def pictures(bucket: Bucket, sample_photos: dict[str, Path]) -> Remote:
    """A prefix with a cat and a rocket, and what is not to be indexed."""
    root = Remote(bucket("pictures"))
    (root / "cat.png").upload(sample_photos["cat"])
    (root / "b c/a+%20?#é.jpg").upload(sample_photos["rocket"])
    (root / "notes.txt").write(b"nothing to see")
    (root / ".hidden/secret.png").upload(sample_photos["cat"])
    (root / "thumbnails/cat.png").upload(sample_photos["cat"])
    return root


def source_of(root: Remote) -> Source:
    return Source.model_validate(
        {"name": "far", "path": root.root, "exclude": ["thumbnails", "*.tmp.png"]}
    )


def test_a_bucket_is_listed_as_a_directory_is(pictures: Remote) -> None:
    rows = list(walk(source_of(pictures)))
    assert [row.path for row in rows] == ["b c/a+%20?#é.jpg", "cat.png"]
    assert all(row.size > 1000 and row.mtime_ns > 0 for row in rows)


def test_settings_name_a_bucket_and_its_pictures_are_found(
    pictures: Remote, tmp_path: Path
) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text(
        f'home = "home"\nmodel = "offline"\ndevice = "cpu"\n'
        f'[[sources]]\nname = "far"\npath = "{pictures.root}"\nexclude = ["thumbnails"]\n'
    )
    settings = load_settings(file)
    assert settings.sources[0].path == pictures
    report = index_sources(settings)
    assert "2 image files (2 new); 2 embedded" in index_report(report)
    searcher = Searcher.open(settings)
    hit = searcher.search(Query(text="a cat"), k=1)[0]
    assert str(hit.path) == f"{pictures}/cat.png"
    assert picture(Job(hit.path, hit.content_id), Fit(64), Limits()).pixels.shape[1] == 64
    status = read_status(settings, searcher.build.info.space)
    assert status.sources[0].reachable
    again = index_sources(settings)
    assert (again.manifests[0].unchanged, again.manifests[0].bytes_hashed) == (2, 0)
    assert again.embeddings[0].embedded == 0


def test_an_object_that_was_overwritten_is_hashed_again(
    pictures: Remote, sample_photos: dict[str, Path], tmp_path: Path
) -> None:
    store, source = Store(tmp_path / "home"), source_of(pictures)
    update_manifest(store, source)
    former = dict(zip(*_paths_and_contents(store), strict=True))
    (pictures / "cat.png").upload(sample_photos["coffee"])
    report = update_manifest(store, source)
    assert (report.changed, report.unchanged) == (1, 1)
    assert dict(zip(*_paths_and_contents(store), strict=True))["cat.png"] != former["cat.png"]


def test_a_bucket_that_is_gone_loses_nothing(
    pictures: Remote, bucket: Bucket, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home")
    update_manifest(store, source_of(pictures))
    gone = source_of(Remote(bucket("pictures").replace("s3://bucket-", "s3://other-")))
    with pytest.raises(SourceError, match=r'source "far": s3://other-.*Nothing was deleted'):
        update_manifest(store, gone)
    with pytest.raises(SourceError, match="Nothing was deleted"):
        update_manifest(store, source_of(Remote(bucket("no-such-prefix"))))
    assert len(read_manifest(store, "far")) == 2


def test_remote_images_are_decoded_under_the_same_guards(pictures: Remote) -> None:
    (pictures / "broken.png").write(b"\x89PNG\r\n\x1a\n and no more")
    transform = ImageTransform(32, (32, 32), "bicubic", (0, 0, 0), (1, 1, 1))
    jobs = [
        Job(pictures / "cat.png"),
        Job(pictures / "broken.png"),
        Job(pictures / "cat.png", "0" * 32),
        Job(pictures / "none.png", "0" * 32),
    ]
    with DecodePool(transform, Limits(), workers=1) as pool:
        outcomes = [outcome for _, outcome in pool.map(jobs)]
    assert [type(outcome) for outcome in outcomes] == [Decoded, ImageError, Changed, Changed]
    with DecodePool(transform, Limits(bytes=1000), workers=1) as pool:
        ((_, outcome),) = pool.map(jobs[:1])
    assert isinstance(outcome, ImageError) and outcome.reason == "too_large"


def test_any_file_system_of_fsspec_will_do(sample_photos: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    root = Remote("memory://pictures/here")
    (root / "deep/cat.png").upload(sample_photos["cat"])
    report = update_manifest(Store(tmp_path / "home"), source_of(root))
    assert report.files == 1
    with pytest.raises(RemoteError, match="nowhere://x"):
        Remote("nowhere://x").files()


def test_keys_in_a_url_are_not_shown() -> None:
    assert str(Remote("s3://KEY:secret@bucket/x?region=eu") / "a.jpg") == "s3://bucket/x/a.jpg"


def test_a_source_inside_another_is_refused_on_a_bucket_too(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text(
        '[[sources]]\nname = "a"\npath = "s3://bucket/x"\n'
        '[[sources]]\nname = "b"\npath = "s3://bucket/x/y?region=eu-central-1"\n'
    )
    with pytest.raises(SettingsError, match=r'source "b" .* lies inside source "a"'):
        load_settings(file)


def _paths_and_contents(store: Store) -> tuple[list[str], list[str]]:
    manifest = read_manifest(store, "far")
    return manifest["path"].to_pylist(), manifest["content_id"].to_pylist()
