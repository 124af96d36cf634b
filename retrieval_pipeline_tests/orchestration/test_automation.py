"""What Dagster does by itself: automation, the sensor that watches, the schedule."""

import builtins
import io
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.orchestration import sensors
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource

pytestmark = pytest.mark.slow

BOTH = ("a", "b")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with two directories, a and b, of one small picture each."""
    for number, name in enumerate(BOTH):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (90, 90 * number, 0)).save(tmp_path / name / "one.png")
    file = tmp_path / "retrieval.toml"
    pairs = [(name, tmp_path / name) for name in BOTH]
    file.write_text(settings_text(pairs, model="offline", home="home"))
    return file


def definitions(config: Path) -> dg.Definitions:
    return build_definitions(load_settings(config), LibraryResource(config_file=str(config)))


class Daemon:
    """Evaluates the conditions as the daemon does, tick by tick."""

    def __init__(self, instance: dg.DagsterInstance, defs: dg.Definitions) -> None:
        self.instance, self.defs = instance, defs
        self.cursor = None

    def materialised(self, asset: str, version: str, partition: str | None = None) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset,
                partition=partition,
                tags={"dagster/data_version": version, "dagster/code_version": "1"},
            )
        )

    def everything(self) -> None:
        for source in BOTH:
            self.materialised("file_manifest", "m1", source)
            self.materialised("image_embeddings", "e1", source)
        self.materialised("retrieval_index", "i1")
        self.materialised("latent_map", "l1")

    def tick(self) -> set[str]:
        """Return what is requested, such as "image_embeddings/a"."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return {
            "/".join((*key.path, *([partition] if partition else [])))
            for key in self.defs.resolve_asset_graph().get_all_asset_keys()
            for partition in result.get_requested_partitions(key)
        }


@pytest.fixture
def daemon(instance: dg.DagsterInstance, config: Path) -> Daemon:
    """A daemon that has seen everything materialised once."""
    daemon = Daemon(instance, definitions(config))
    daemon.everything()
    daemon.tick()
    assert daemon.tick() == set()
    return daemon


def test_identical_data_makes_nothing_follow(daemon: Daemon) -> None:
    daemon.everything()
    assert daemon.tick() == set()
    assert daemon.tick() == set()


def test_new_data_makes_the_flow_follow_step_by_step(daemon: Daemon) -> None:
    daemon.materialised("file_manifest", "m2", "b")
    assert daemon.tick() == {"image_embeddings/b"}
    daemon.materialised("image_embeddings", "e2", "b")
    assert daemon.tick() == {"retrieval_index", "latent_map"}
    daemon.materialised("retrieval_index", "i2")
    daemon.materialised("latent_map", "l2")
    assert daemon.tick() == set()


def test_new_files_without_a_new_picture_stop_at_the_embeddings(daemon: Daemon) -> None:
    daemon.materialised("file_manifest", "m2", "a")
    assert daemon.tick() == {"image_embeddings/a"}
    daemon.materialised("image_embeddings", "e1", "a")
    assert daemon.tick() == set()


def test_a_source_that_was_never_indexed_keeps_no_other_from_being_found(
    instance: dg.DagsterInstance, config: Path
) -> None:
    daemon = Daemon(instance, definitions(config))
    daemon.tick()
    daemon.materialised("file_manifest", "m1", "a")
    assert daemon.tick() == {"image_embeddings/a"}
    daemon.materialised("image_embeddings", "e1", "a")
    assert daemon.tick() == {"retrieval_index", "latent_map"}


def test_another_model_in_the_settings_embeds_every_source(daemon: Daemon, config: Path) -> None:
    settings = load_settings(config).model_copy(update={"model": "another/model"})
    daemon.defs = build_definitions(settings, LibraryResource(config_file=str(config)))
    assert daemon.tick() == {"image_embeddings/a", "image_embeddings/b"}


def test_freshness_is_looked_at_every_six_hours(config: Path, instance: dg.DagsterInstance) -> None:
    defs = definitions(config)
    selection = defs.get_sensor_def("follow_new_data").asset_selection
    moments = [datetime(2026, 1, 1, hour, minute) for hour, minute in ((5, 59), (6, 1), (6, 2))]
    cursor, requested = None, []
    for moment in moments:
        result = dg.evaluate_automation_conditions(
            defs, instance, selection, cursor=cursor, evaluation_time=moment
        )
        cursor = result.cursor
        requested.append(result.total_requested)
    assert requested == [0, 1, 0]


def look(
    defs: dg.Definitions, config: Path, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[list[str | None], dg.SensorResult]:
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"library": LibraryResource(config_file=str(config))},
    )
    result = defs.get_sensor_def("watch")(context)
    assert isinstance(result, dg.SensorResult)
    return [request.partition_key for request in result.run_requests or []], result


def test_the_watcher_starts_a_run_for_each_directory_that_changed(
    config: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(config)
    changed, first = look(defs, config, instance, None)
    assert changed == ["a", "b"]
    changed, second = look(defs, config, instance, first.cursor)
    assert changed == []
    shutil.copy(config.parent / "a" / "one.png", config.parent / "b" / "two.png")
    changed, third = look(defs, config, instance, second.cursor)
    assert changed == ["b"]
    (config.parent / "b" / "two.png").unlink()
    changed, fourth = look(defs, config, instance, third.cursor)
    assert changed == ["b"]
    # The directory is as it was at first, and yet this run is another one.
    keys = [result.run_requests[-1].run_key for result in (first, third, fourth)]
    assert len(set(keys)) == 3


def test_looking_opens_no_picture(
    config: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def record(file: object, *args: object, **options: object) -> object:
        opened.append(str(file))
        return open_file(file, *args, **options)

    open_file = io.open
    monkeypatch.setattr(io, "open", record)
    monkeypatch.setattr(builtins, "open", record)
    assert look(definitions(config), config, instance, None)[0] == ["a", "b"]
    assert str(config) in opened
    assert not [file for file in opened if file.endswith(".png")]


def test_a_touched_file_is_a_change(config: Path, instance: dg.DagsterInstance) -> None:
    defs = definitions(config)
    _, first = look(defs, config, instance, None)
    os.utime(config.parent / "a" / "one.png", (1, 1))
    changed, _ = look(defs, config, instance, first.cursor)
    assert changed == ["a"]


def test_an_unreachable_directory_is_told_and_starts_nothing(
    config: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(config)
    _, first = look(defs, config, instance, None)
    (config.parent / "a").rename(config.parent / "unplugged")
    changed, second = look(defs, config, instance, first.cursor)
    assert changed == []
    assert second.skip_reason is not None
    assert 'source "a"' in str(second.skip_reason.skip_message)
    assert "Is the disk mounted?" in str(second.skip_reason.skip_message)
    (config.parent / "unplugged").rename(config.parent / "a")
    assert look(defs, config, instance, second.cursor)[0] == []


def test_settings_that_cannot_be_read_are_no_empty_list(
    config: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(config)
    _, first = look(defs, config, instance, None)
    config.write_text("modle = 1")
    with pytest.raises(dg.Failure, match="modle: unknown key"):
        look(defs, config, instance, first.cursor)


def test_a_source_that_is_new_in_the_settings_asks_for_a_reload(
    config: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(config)
    _, first = look(defs, config, instance, None)
    (config.parent / "c").mkdir()
    pairs = [(name, config.parent / name) for name in (*BOTH, "c")]
    config.write_text(settings_text(pairs, model="offline", home="home"))
    changed, second = look(defs, config, instance, first.cursor)
    assert changed == []
    assert second.skip_reason is not None
    assert "reload the definitions" in str(second.skip_reason.skip_message)


def test_a_source_can_be_left_to_the_schedule(config: Path, instance: dg.DagsterInstance) -> None:
    config.write_text(config.read_text() + "watch = false\n")
    assert look(definitions(config), config, instance, None)[0] == ["a"]


def test_what_there_was_no_time_for_is_looked_at_next(
    config: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LAST_START_SECONDS", 0.0)
    ticks = iter(range(100))
    monkeypatch.setattr(sensors.time, "monotonic", lambda: next(ticks) / 2)
    defs = definitions(config)
    first, result = look(defs, config, instance, None)
    assert first == []
    monkeypatch.setattr(sensors, "LAST_START_SECONDS", 1.0)
    first, result = look(defs, config, instance, None)
    second, _ = look(defs, config, instance, result.cursor)
    assert (first, second) == (["a"], ["b"])


def test_a_directory_that_takes_too_long_is_told(
    config: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LISTING_SECONDS", -1.0)
    changed, result = look(definitions(config), config, instance, None)
    assert changed == []
    assert result.skip_reason is not None
    assert "`watch = false`" in str(result.skip_reason.skip_message)


def nightly_of(defs: dg.Definitions) -> dg.ScheduleDefinition:
    found = defs.get_schedule_def("nightly")
    assert isinstance(found, dg.ScheduleDefinition)
    return found


def runs_of_a_night(defs: dg.Definitions) -> list[str | None]:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC),
        repository_def=defs.get_repository_def(),
    )
    return [run.partition_key for run in nightly_of(defs).evaluate_tick(context).run_requests or []]


def test_the_schedule_has_a_run_for_each_source_and_its_time_from_the_settings(
    config: Path,
) -> None:
    text = '[schedule]\nreindex = "30 4 * * 1"\ntimezone = "Europe/Berlin"\n'
    config.write_text(config.read_text() + text)
    schedule = nightly_of(definitions(config))
    assert schedule.cron_schedule == "30 4 * * 1"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert runs_of_a_night(definitions(config)) == ["a", "b"]


def test_everything_that_runs_by_itself_is_on(config: Path) -> None:
    defs = definitions(config)
    running = dg.DefaultSensorStatus.RUNNING
    assert defs.get_sensor_def("watch").default_status is running
    assert defs.get_sensor_def("watch").minimum_interval_seconds == 60
    assert defs.get_sensor_def("follow_new_data").default_status is running
    assert nightly_of(defs).default_status is dg.DefaultScheduleStatus.RUNNING


def test_without_sources_nothing_is_scheduled() -> None:
    assert runs_of_a_night(build_definitions(Settings())) == []
