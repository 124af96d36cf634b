"""What runs tell Dagster: a version for each partition, one line for an error, what is retried."""

import errno
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.errors import EncoderError, StoreError
from retrieval_pipeline.orchestration import assets, events
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource

pytestmark = pytest.mark.slow

ALL = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with three directories of one small picture each."""
    for number, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (90, 90 * number, 0)).save(tmp_path / name / "one.png")
    file = tmp_path / "retrieval.toml"
    pairs = [(name, tmp_path / name) for name in "abc"]
    file.write_text(settings_text(pairs, model="offline", home="home"))
    return file


def crawl(
    config: Path,
    instance: dg.DagsterInstance,
    partition: str | None = None,
    run_config: dict[str, object] | None = None,
) -> dg.ExecuteInProcessResult:
    """Look at one directory, or at all of them in one run."""
    library = LibraryResource(config_file=str(config))
    return dg.materialize(
        [build_definitions(load_settings(config), library).get_assets_def("file_manifest")],
        resources={"library": library},
        partition_key=partition,
        tags=None if partition else ALL,
        instance=instance,
        run_config={**QUIET, **(run_config or {})},
        raise_on_error=False,
    )


def versions(instance: dg.DagsterInstance) -> dict[str, str]:
    """Return the latest data version of each partition of the manifest."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        dg.AssetKey("file_manifest"),
        event_type=dg.DagsterEventType.ASSET_MATERIALIZATION,
        tag_keys=["dagster/data_version"],
    )
    return {partition: each["dagster/data_version"] for partition, each in tags.items()}


def test_a_run_over_all_sources_and_one_for_each_give_the_same_versions(
    config: Path, instance: dg.DagsterInstance
) -> None:
    assert crawl(config, instance).success
    together = versions(instance)
    assert len(set(together.values())) == 3
    for name in "abc":
        assert crawl(config, instance, name).success
    assert versions(instance) == together


def test_only_the_source_that_changed_has_another_version(
    config: Path, instance: dg.DagsterInstance
) -> None:
    crawl(config, instance)
    before = versions(instance)
    Image.new("RGB", (9, 9)).save(config.parent / "b" / "two.png")
    crawl(config, instance)
    after = versions(instance)
    assert {name for name in "abc" if before[name] != after[name]} == {"b"}


def test_a_source_that_is_away_fails_its_run_and_the_others_are_recorded(
    config: Path, instance: dg.DagsterInstance
) -> None:
    (config.parent / "b").rename(config.parent / "unplugged")
    result = crawl(config, instance)
    assert not result.success
    failure = result.failure_data_for_node("file_manifest")
    assert failure is not None
    assert 'source "b"' in str(failure.user_failure_data)
    assert set(versions(instance)) == {"a", "c"}


def test_a_source_that_shrank_needs_a_word_in_the_launchpad(
    config: Path, instance: dg.DagsterInstance
) -> None:
    crawl(config, instance, "a")
    (config.parent / "a" / "one.png").unlink()
    assert not crawl(config, instance, "a").success
    confirmed = {"ops": {"file_manifest": {"config": {"allow_shrink": True}}}}
    assert crawl(config, instance, "a", confirmed).success


def test_a_disk_that_fails_for_a_moment_is_tried_again(
    config: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BACKOFF_SECONDS", 0.01)
    attempts = []

    def update(*args: object, **options: object) -> object:
        attempts.append(args)
        if len(attempts) < 3:
            raise StoreError("the share is away") from OSError(errno.EIO, "Input/output error")
        return update_manifest(*args, **options)

    update_manifest = assets.update_manifest
    monkeypatch.setattr(assets, "update_manifest", update)
    assert crawl(config, instance, "a").success
    assert len(attempts) == 3


@pytest.mark.parametrize(
    "error",
    [
        EncoderError("no such model"),
        StoreError("no space left"),
        ZeroDivisionError("a bug"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(
    config: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    attempts = []

    def update(*args: object, **options: object) -> object:
        attempts.append(args)
        raise error

    monkeypatch.setattr(assets, "update_manifest", update)
    assert not crawl(config, instance, "a").success
    assert len(attempts) == 1


def test_a_share_that_stays_away_is_given_up(
    config: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BACKOFF_SECONDS", 0.01)
    attempts = []

    def update(*args: object, **options: object) -> object:
        attempts.append(args)
        raise StoreError("the share is away") from OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(assets, "update_manifest", update)
    result = crawl(config, instance, "a")
    assert len(attempts) == 1 + events.RETRIES
    failure = result.failure_data_for_node("file_manifest")
    assert failure is not None
    assert "the share is away" in str(failure.user_failure_data)
