"""What Dagster does by itself: automation, the sensor that watches, the schedule."""

import builtins
import io
import itertools
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.orchestration import sensors
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.flow import WHOLE_FLOW
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.orchestration.sensors import Cursor

pytestmark = pytest.mark.slow

BOTH = ("a", "b")
STARTED, SUCCESS = dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS
FAILED = dg.DagsterEventType.RUN_FAILURE


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
            self.materialised("picture_facts", "f1", source)
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

    def ticks(self) -> set[str]:
        """Return what is requested by two ticks: new data within the flow waits for the second."""
        return self.tick() | self.tick()


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


def test_what_people_materialise_makes_the_flow_follow_step_by_step(daemon: Daemon) -> None:
    daemon.materialised("file_manifest", "m2", "b")
    assert daemon.ticks() == {"image_embeddings/b", "picture_facts/b"}
    daemon.materialised("image_embeddings", "e2", "b")
    daemon.materialised("picture_facts", "f2", "b")
    assert daemon.ticks() == {"retrieval_index", "latent_map"}
    daemon.materialised("retrieval_index", "i2")
    daemon.materialised("latent_map", "l2")
    # Also when an index has not changed, nothing follows the second time.
    assert daemon.ticks() == set()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_run_over_the_whole_flow_is_followed_by_what_uses_the_index_alone(
    daemon: Daemon, config: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    saved = '[[saved_queries]]\nname = "dogs"\ntext = "a dog"\n'
    config.write_text(f"{config.read_text()}{saved}")
    daemon.defs = definitions(config)
    daemon.materialised("saved_query", "s1", "dogs")
    daemon.tick()

    @dg.op(out={})
    def all_of_it(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization]:
        for asset, partitions in (
            ("file_manifest", "a b"),
            ("image_embeddings", "a b"),
            ("picture_facts", "a b"),
            ("retrieval_index", ""),
        ):
            tags = {"dagster/data_version": "new"}
            last = log.get_maximum_record_id()
            for partition in partitions.split() or [None]:
                yield dg.AssetMaterialization(asset, partition=partition, tags=tags)
            with monkeypatch.context() as patch:
                if meanwhile:  # The event comes when the evaluation has begun.
                    patch.setattr(log, "get_maximum_record_id", partial(int, last))
                requested.update(daemon.tick())

    requested: set[str] = set()
    log = daemon.instance.event_log_storage
    job = dg.GraphDefinition(name="whole", node_defs=[all_of_it]).to_job()
    assert job.execute_in_process(instance=daemon.instance, tags=WHOLE_FLOW).success
    assert requested | daemon.tick() == {"saved_query/dogs"}


def test_new_files_without_a_new_picture_stop_at_embeddings_and_facts(daemon: Daemon) -> None:
    daemon.materialised("file_manifest", "m2", "a")
    assert daemon.ticks() == {"image_embeddings/a", "picture_facts/a"}
    daemon.materialised("image_embeddings", "e1", "a")
    daemon.materialised("picture_facts", "f1", "a")
    assert daemon.ticks() == set()


def test_new_facts_of_old_pictures_renew_the_index(daemon: Daemon) -> None:
    daemon.materialised("picture_facts", "f2", "a")
    assert daemon.ticks() == {"retrieval_index", "latent_map"}


def test_a_source_that_was_never_indexed_keeps_no_other_from_being_found(
    instance: dg.DagsterInstance, config: Path
) -> None:
    daemon = Daemon(instance, definitions(config))
    # What was never made is left to the run over the whole flow.
    assert daemon.ticks() == set()
    daemon.materialised("file_manifest", "m1", "a")
    assert daemon.ticks() == {"image_embeddings/a", "picture_facts/a"}
    daemon.materialised("image_embeddings", "e1", "a")
    daemon.materialised("picture_facts", "f1", "a")
    assert daemon.ticks() == {"retrieval_index", "latent_map"}


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


class Watcher:
    """The sensor that watches, tick by tick, and the runs that it asks for."""

    def __init__(self, config: Path, instance: dg.DagsterInstance) -> None:
        self.config, self.instance = config, instance
        self.defs = definitions(config)
        self.cursor: str | None = None
        self.tick: SensorExecutionData

    def look(self) -> list[list[str]]:
        """Return the sources of each run that is asked for; an empty list means all."""
        library = LibraryResource(config_file=str(self.config))
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"library": library}
        )
        self.tick = self.defs.get_sensor_def("watch").evaluate_tick(context)
        self.cursor = self.tick.cursor
        return [
            request.run_config["ops"]["reindex"]["config"]["sources"] if request.run_config else []
            for request in self.tick.run_requests or ()
        ]

    @property
    def said(self) -> str:
        return self.tick.skip_message or ""

    def run(self, event: dg.DagsterEventType, ended: float = 0.0, **tags: str) -> None:
        """Let the run that was asked for start and, so many seconds ago, end in this way."""
        (request,) = self.tick.run_requests or ()
        assert request.run_key
        run = self.instance.create_run_for_job(
            self.defs.resolve_job_def("reindex_job"),
            tags={**request.tags, **tags, "dagster/run_key": request.run_key},
        )
        self.instance.report_dagster_event(
            dg.DagsterEvent(event.value, run.job_name), run.run_id, timestamp=time.time() - ended
        )


@pytest.fixture
def watcher(config: Path, instance: dg.DagsterInstance) -> Watcher:
    return Watcher(config, instance)


@pytest.fixture
def quiet(watcher: Watcher) -> Watcher:
    """A watcher whose first run is over."""
    assert watcher.look() == [["a", "b"]]
    watcher.run(SUCCESS)
    assert watcher.look() == []
    return watcher


def test_all_that_has_changed_becomes_one_run(quiet: Watcher) -> None:
    folder = quiet.config.parent
    shutil.copy(folder / "a" / "one.png", folder / "b" / "two.png")
    assert quiet.look() == [["b"]]
    (request,) = quiet.tick.run_requests or ()
    assert request.tags["retrieval/source"] == "b"
    assert request.tags["dagster/priority"] == "-1"
    quiet.run(SUCCESS)
    (folder / "b" / "two.png").unlink()
    os.utime(folder / "a" / "one.png", (1, 1))
    assert quiet.look() == [["a", "b"]]
    # The directory is as it was at first, and yet this run is another one.
    assert (quiet.tick.run_requests or ())[0].run_key != request.run_key


def test_what_others_tell_of_a_source_is_followed_without_listing_it(
    config: Path, instance: dg.DagsterInstance
) -> None:
    config.write_text(config.read_text().replace("[[sources]]", "[[sources]]\nwatch = false"))
    watcher = Watcher(config, instance)
    assert watcher.look() == []
    for source in ("b", "b", "left the settings"):
        event = dg.AssetObservation("file_manifest", partition=source)
        instance.report_runless_asset_event(event)
    assert watcher.look() == [["b"]]
    watcher.run(STARTED)
    instance.report_runless_asset_event(dg.AssetObservation("file_manifest", partition="a"))
    # Not forgotten while the run is on its way.
    assert watcher.look() == []
    (run,) = instance.get_runs()
    instance.report_run_canceled(run)
    assert watcher.look() == [["a"]]
    watcher.run(SUCCESS)
    assert watcher.look() == []


def test_what_changes_during_a_run_waits_for_its_end(watcher: Watcher) -> None:
    assert watcher.look() == [["a", "b"]]
    watcher.run(STARTED)
    shutil.copy(watcher.config.parent / "a" / "one.png", watcher.config.parent / "b" / "two.png")
    assert watcher.look() == []
    assert "is on its way" in watcher.said
    (run,) = watcher.instance.get_runs()
    watcher.instance.report_run_canceled(run)
    assert watcher.look() == [["b"]]


def test_a_run_that_failed_is_asked_for_again_after_waits_that_grow(quiet: Watcher) -> None:
    os.utime(quiet.config.parent / "b" / "one.png", (1, 1))
    assert quiet.look() == [["b"]]
    # Each time it fails just before, or long enough ago.
    for wait in (60, 120, 240):
        asked = quiet.tick
        quiet.run(FAILED, ended=wait - 30)
        assert quiet.look() == []
        assert "its sources are tried again in" in quiet.said
        quiet.tick = asked
        quiet.run(FAILED, ended=wait + 1)
        assert quiet.look() == [["b"]]


def test_what_a_source_was_refused_for_is_left_to_people(quiet: Watcher) -> None:
    os.utime(quiet.config.parent / "b" / "one.png", (1, 1))
    assert quiet.look() == [["b"]]
    quiet.run(FAILED, ended=10_000, **{"retrieval/refused_sources": "b"})
    assert quiet.look() == []


def test_looking_opens_no_picture(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def record(file: object, *args: object, **options: object) -> object:
        opened.append(str(file))
        return open_file(file, *args, **options)

    open_file = io.open
    monkeypatch.setattr(io, "open", record)
    monkeypatch.setattr(builtins, "open", record)
    assert watcher.look() == [["a", "b"]]
    assert str(watcher.config) in opened
    assert not [file for file in opened if file.endswith(".png")]


def test_a_directory_that_went_away_fails_its_check_at_once_and_is_looked_at_when_it_is_back(
    quiet: Watcher,
) -> None:
    folder = quiet.config.parent
    (folder / "a").rename(folder / "unplugged")
    assert quiet.look() == []
    assert 'source "a"' in quiet.said
    assert "Is the disk mounted?" in quiet.said
    (check,) = quiet.tick.asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert (check.check_name, check.partition, check.passed) == ("source_is_whole", "a", False)
    assert quiet.look() == []
    assert not quiet.tick.asset_events
    (folder / "unplugged").rename(folder / "a")
    assert quiet.look() == [["a"]]


def test_settings_that_cannot_be_read_are_no_empty_list(quiet: Watcher) -> None:
    quiet.config.write_text("modle = 1")
    with pytest.raises(dg.Failure, match="modle: unknown key"):
        quiet.look()


@pytest.mark.parametrize("change", ["another source", "one source less", "another model"])
def test_an_edit_of_the_settings_is_followed_without_a_reload(quiet: Watcher, change: str) -> None:
    names, model = {
        "another source": (("a", "b", "c"), "offline"),
        "one source less": (("a",), "offline"),
        "another model": (("a", "b"), "another/model"),
    }[change]
    folder = quiet.config.parent
    (folder / "c").mkdir()
    pairs = [(name, folder / name) for name in names]
    quiet.config.write_text(settings_text(pairs, model=model, home="home"))
    assert quiet.look() == [[]]
    quiet.run(SUCCESS)
    assert quiet.look() == []
    told = "new since the definitions were loaded, reload them: source c"
    assert (told in quiet.said) == ("c" in names)


def test_settings_without_any_source_ask_for_nothing(quiet: Watcher) -> None:
    quiet.config.write_text(settings_text([], model="offline", home="home"))
    assert quiet.look() == []


def test_a_source_can_be_left_to_the_schedule(config: Path, instance: dg.DagsterInstance) -> None:
    config.write_text(config.read_text() + "watch = false\n")
    assert Watcher(config, instance).look() == [["a"]]


def test_what_there_was_no_time_for_is_looked_at_next(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(sensors.time, "monotonic", lambda: next(ticks) / 2)
    monkeypatch.setattr(sensors, "LAST_START_SECONDS", 0.0)
    assert watcher.look() == []
    monkeypatch.setattr(sensors, "LAST_START_SECONDS", 1.0)
    assert watcher.look() == [["a"]]
    watcher.run(SUCCESS)
    assert watcher.look() == [["b"]]


def test_a_directory_that_takes_longer_than_a_look_is_listed_in_several(
    quiet: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quiet.config.parent / "a"
    for name in ("sub/two.png", "sub/deeper/three.png", "sub/deeper/four.png", "sub.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(folder / "one.png", folder / name)
    (folder / "one.xmp").write_text("beside")
    at_once = quiet.cursor
    assert quiet.look() == [["a"]]
    found, quiet.cursor = quiet.cursor, at_once
    ticks = itertools.count()
    monkeypatch.setattr(sensors.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(sensors, "LAST_START_SECONDS", math.inf)
    monkeypatch.setattr(sensors, "LISTING_SECONDS", 1.0)
    looks = 0
    while not (asked := quiet.look()):
        looks += 1
        assert 'source "a": listed as far as' in quiet.said
    assert (asked, looks) == ([["a"]], 2)
    # It looks the same as when it was listed at once.
    assert found is not None and quiet.cursor is not None
    listings = [Cursor.model_validate_json(each).listings for each in (found, quiet.cursor)]
    assert listings[0] == listings[1]


def test_a_directory_that_takes_too_long_is_told(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LISTING_SECONDS", -1.0)
    assert watcher.look() == []
    assert "`watch = false`" in watcher.said


def nightly_of(defs: dg.Definitions) -> dg.ScheduleDefinition:
    found = defs.get_schedule_def("nightly")
    assert isinstance(found, dg.ScheduleDefinition)
    return found


def runs_of_a_night(defs: dg.Definitions) -> list[Mapping[str, object]]:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC),
        repository_def=defs.get_repository_def(),
    )
    return [run.run_config for run in nightly_of(defs).evaluate_tick(context).run_requests or []]


def test_the_schedule_is_one_run_over_all_sources_and_has_its_time_from_the_settings(
    config: Path,
) -> None:
    text = '[schedule]\nreindex = "30 4 * * 1"\ntimezone = "Europe/Berlin"\n'
    config.write_text(config.read_text() + text)
    schedule = nightly_of(definitions(config))
    assert schedule.cron_schedule == "30 4 * * 1"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert runs_of_a_night(definitions(config)) == [{}]


def test_everything_that_runs_by_itself_is_on(config: Path) -> None:
    defs = definitions(config)
    running = dg.DefaultSensorStatus.RUNNING
    assert defs.get_sensor_def("watch").default_status is running
    assert defs.get_sensor_def("watch").minimum_interval_seconds == 30
    assert defs.get_sensor_def("lost_runs").default_status is running
    assert defs.get_sensor_def("follow_new_data").default_status is running
    assert nightly_of(defs).default_status is dg.DefaultScheduleStatus.RUNNING


def test_without_sources_nothing_is_scheduled() -> None:
    assert runs_of_a_night(build_definitions(Settings())) == []
