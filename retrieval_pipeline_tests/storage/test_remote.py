"""Sources on an object store: moto's S3 server on the loopback interface, and fsspec's memory."""

import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from retrieval_pipeline.cli.index_text import index_report
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.errors import SettingsError, SourceError
from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import picture
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.walk import walk
from retrieval_pipeline.maintenance.status import read_status
from retrieval_pipeline.maintenance.verify import verify
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
        {"name": "far", "path": root.url_with_credentials(), "exclude": ["thumbnails", "*.tmp.png"]}
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
        f'[[sources]]\nname = "far"\npath = "{pictures.url_with_credentials()}"\n'
        'exclude = ["thumbnails"]\n'
    )
    settings = load_settings(file)
    assert settings.sources[0].path == pictures
    report = index_sources(settings)
    assert "2 image files (2 new); 2 embedded" in "\n".join(index_report(report))
    searcher = Searcher.open(settings)
    hit = searcher.search(Query(text="a cat"), k=1)[0]
    assert str(hit.path) == f"{pictures}/cat.png"
    assert picture(Job(hit.path, hit.content_id), Fit(64), Limits()).pixels.shape[1] == 64
    status = read_status(settings, searcher.corpus.info.space)
    assert status.sources[0].reachable
    again = index_sources(settings)
    assert (again.manifests[0].unchanged, again.manifests[0].bytes_hashed) == (2, 0)
    assert again.embeddings[0].embedded == 0


def test_keys_of_any_form_end_no_crawl(
    pictures: Remote, put_key: Callable[[str, str, bytes], None], tmp_path: Path
) -> None:
    strange = ["../../x.png", "./x.png", "/x.png", "a//x.png", "x.png/", "/", "two\nlines.png"]
    strange += ["a\\b.png", "x.png/y.png", "\N{RIGHT-TO-LEFT OVERRIDE}.png"]
    for key in strange:
        put_key(pictures.url_with_credentials(), key, b"x")
    store = Store(tmp_path / "home")
    report = update_manifest(store, source_of(pictures))
    assert report.files >= 2
    assert report.files + report.unreadable == len(read_manifest(store, "far"))
    assert not [finding for finding in verify(store) if finding.problem]


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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/x/", "s3://bucket/x"),
        ("s3://KEY:secret@bucket/x?region=eu", "s3://bucket/x"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("hdfs://host:8020/x", "hdfs://host:8020/x"),
        ("hdfs://[::1]:8020/x", "hdfs://[::1]:8020/x"),
        ("sftp://user@host/photos@home", "sftp://host/photos@home"),
        ("abfs://container@account.dfs.core.windows.net/x", None),
    ],
)
def test_a_place_is_shown_without_credentials(url: str, shown: str | None) -> None:
    assert str(Remote(url) / "a.jpg") == f"{shown or url}/a.jpg"


# Each holds "hush" or "quiet" where people put secrets, escaped or not, in the right place or not.
SECRET_URLS = [
    "s3://hush:quiet@bucket/x?secret_key=hush",
    "s3://bucket/x?secret=hush",
    "s3://hush:quiet/hush@bucket",
    "s3://hush:quiet+hush/quiet=@bucket/x",
    "s3://hush:qu%ZZiet hush@bucket",
    "s3://hush:quiet?hush@bucket",
    "s3://hush:quiet#hush@bucket",
    "s3://hush:quiet@hush@bucket",
    "s3://hush:quiet\\hush@bucket",
    "s3://hush:quiet",
    "s3://hush:quiet/hush",
    "gs://hush:quiet@",
    "foo://user:hush@host",
    "foo://hush:quiet@host:port/x",
    "sftp://user:hush@host:99999/x",
    "http://user:hush@[::1",
    "hdfs://user:hush@host:bad/x",
    "abfs://container:hush@account/x",
    "abfs://account/x?sas=hush",
    "s3://user:hush\nquiet@bucket",
]
# To open these would take a network.
VALID_URLS = [
    "s3://hush:quiet@bucket/x?endpoint_override=127.0.0.1:9&scheme=http",
    "s3://hush:12345/quiet@bucket/x",
    "s3://hush%3Aquiet@bucket",
]
MISTYPED = [
    " s3://hush:quiet@bucket",
    "s3:/hush:quiet@bucket",
    "s3 ://hush:quiet@bucket",
    "s3//hush:quiet@bucket",
    "//hush:quiet@bucket",
    "x://hush:quiet@bucket",
    "s3_x://hush:quiet@bucket",
]


def reveals(text: object) -> bool:
    return "hush" in str(text) or "quiet" in str(text) or "qu%ZZiet" in str(text)


@pytest.mark.parametrize("url", [*SECRET_URLS, *VALID_URLS])
def test_no_secret_in_a_url_is_in_the_text_of_a_place(url: str) -> None:
    place = Remote(url) / "a.jpg"
    settings = Settings.model_validate({"sources": [{"name": "far", "path": url}]})
    home = Settings.model_validate({"home": url})
    assert not any(reveals(show(each)) for each in (place, settings, home) for show in (str, repr))
    assert not reveals(settings.model_dump_json() + home.model_dump_json())
    assert not reveals(Store(home.home).home)


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_secret_in_a_url_is_in_an_error_or_its_causes(url: str) -> None:
    source = Source.model_validate({"name": "far", "path": url})
    with pytest.raises(RemoteError) as refused:
        Remote(url).info()
    with pytest.raises(SourceError) as failed:
        list(walk(source))
    for error in (refused.value, failed.value):
        assert not reveals("".join(traceback.format_exception(error)))


@pytest.mark.parametrize("url", MISTYPED)
@pytest.mark.parametrize("template", ["home = {}", '[[sources]]\nname = "far"\npath = {}'])
def test_what_was_meant_to_be_a_url_is_refused_and_not_shown(
    tmp_path: Path, url: str, template: str
) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text(template.format(json.dumps(url)))
    with pytest.raises(SettingsError, match="neither a path nor a URL") as raised:
        load_settings(file)
    assert not reveals("".join(traceback.format_exception(raised.value)))
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"home": url})
    assert not reveals(refused.value)


def test_settings_that_are_refused_show_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    for text in (
        'home = ["s3://hush:quiet@bucket"]',
        '[ray]\naddress = "ray://hush:quiet@host"',
        'device = "s3://hush:quiet@bucket"',
        'home = "s3://hush:quiet@b/x/y"\n[[sources]]\nname = "a"\npath = "s3://hush:quiet@b/x"',
        '[[sources]]\nname = "s3://hush:quiet@b"\npath = "x"',
    ):
        file.write_text(text)
        with pytest.raises(SettingsError) as raised:
            load_settings(file)
        assert not reveals(raised.value), text


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["index"]])
def test_no_command_prints_a_secret(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "retrieval.toml").write_text(
        'model = "offline"\n'
        '[[sources]]\nname = "a"\npath = "s3://hush:quiet/hush@bucket"\n'
        '[[sources]]\nname = "b"\npath = "foo://user:hush@host"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_pipeline", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "s3://bucket" in done.stdout + done.stderr
    assert not reveals(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


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
