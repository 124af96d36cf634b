"""An index in an engine, looked after: what answers, the way back, checks, what is dropped."""

import shutil
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import BuildError, Stopped
from retrieval_pipeline.index.milvus.client import connect
from retrieval_pipeline.index.milvus.publication import PublicationReport
from retrieval_pipeline.maintenance.engine import collect_engine, verify_engine
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.maintenance.status import read_status, search_line
from retrieval_pipeline.orchestration import assets
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.pipeline import engine, publish
from retrieval_pipeline.pipeline.engine import publications, use_publication
from retrieval_pipeline.pipeline.publish import answering_build, update_index, update_map
from retrieval_pipeline.recommend.votes import add_judgements
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.encoders import VocabularyEncoder
from retrieval_pipeline_tests.support.milvus import no_waiting
from synthetic.tables import content, random_vectors, write_manifest, write_part

__all__ = ["no_waiting"]

pytestmark = pytest.mark.slow

BLUE = VectorSpace("blue", "r1", 16, "p")
GREEN = VectorSpace("green", "r1", 24, "p")
NAMES = [f"n{number}" for number in range(40)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file of one source of thirty pictures, embedded by the blue model."""
    (tmp_path / "a").mkdir()
    file = tmp_path / "retrieval.toml"
    file.write_text(
        'home = "home"\nmodel = "offline"\ndevice = "cpu"\n'
        '[index]\nengine = "milvus"\nuri = "engine.db"\nindex_type = "FLAT"\n'
        '[[sources]]\nname = "a"\npath = "a"\n'
    )
    store = Store(tmp_path / "home")
    write_part(store, BLUE, "a", NAMES, random_vectors(40, 16, seed=1))
    show(store, 30)
    return file


@pytest.fixture
def settings(file: Path) -> Settings:
    return load_settings(file)


def show(store: Store, count: int) -> None:
    write_manifest(store, "a", {f"{name}.jpg": name for name in NAMES[:count]})


def update(settings: Settings, space: VectorSpace = BLUE) -> PublicationReport:
    with Store(settings.home).locked():
        report = update_index(settings, space, lambda: VocabularyEncoder(space.dim))  # type: ignore[arg-type,return-value]
    assert isinstance(report, PublicationReport)
    return report


def test_people_go_back_to_what_was_published_before_and_on_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings.home)
    first = update(settings)
    show(store, 32)
    second = update(settings)
    assert [(each.info.items, each.answers) for each in publications(settings)] == [
        (32, True),
        (30, False),
    ]
    assert use_publication(settings, first.info.build[:20]).info == first.info
    assert answering_build(settings) == first.build
    show(store, 33)
    kept = update(settings)
    assert (kept.published, kept.info) == (False, first.info)
    assert "`retrieval use` holds it" in kept.kept
    with pytest.raises(BuildError, match="is the beginning of several"):
        use_publication(settings, "2")
    with pytest.raises(BuildError, match="is none of the publications"):
        use_publication(settings, "1999")
    with monkeypatch.context() as patched:
        patched.setattr(engine, "SCHEMA_VERSION", engine.SCHEMA_VERSION + 1)
        with pytest.raises(BuildError, match="another version of this program published it"):
            use_publication(settings, second.info.build)
    store.release()
    show(store, 32)
    # Nothing has changed since the second one: it answers again as it is.
    again = update(settings)
    assert (again.published, again.info) == (True, second.info)


def test_a_new_model_waits_for_all_pictures_and_its_former_collections_can_go(
    settings: Settings,
) -> None:
    store = Store(settings.home)
    former = {update(settings).collection}
    show(store, 31)
    former.add(update(settings).collection)
    write_part(store, GREEN, "a", NAMES[:20], random_vectors(20, 24, seed=2))
    assert "it has images to embed: 11 of a" in update(settings, GREEN).kept
    write_part(store, GREEN, "a", NAMES[20:], random_vectors(20, 24, seed=3))
    new = update(settings, GREEN)
    assert new.published
    older = min(
        (each for each in publications(settings) if each.collection in former),
        key=lambda each: each.info.build,
    )
    dropped = collect_engine(settings, space=GREEN, dry_run=True)
    assert [each.path.name for each in dropped] == [older.collection]
    # A collection that this home did not make is nobody's to drop.
    with connect(settings) as client:
        client.create_collection("retrieval_00000000_blue", dimension=4)
    collect_engine(settings, space=GREEN)
    collect_engine(settings, space=GREEN, other_models=True)
    with connect(settings) as client:
        names = {*client.list_collections()}
    assert not names & former
    assert {new.collection, "retrieval_00000000_blue"} <= names
    assert [each.collection for each in publications(settings)] == [new.collection]
    collect(store, ["a"])
    assert not update(settings, GREEN).published


def test_a_stop_ends_a_publication_after_the_call_in_hand(settings: Settings) -> None:
    first = update(settings)
    show(Store(settings.home), 31)
    stop = threading.Event()
    stop.set()
    with Store(settings.home).locked(), pytest.raises(Stopped, match="what was sent is kept"):
        update_index(settings, BLUE, lambda: VocabularyEncoder(16), stop=stop)  # type: ignore[arg-type,return-value]
    assert answering_build(settings) == first.build


def problems(settings: Settings) -> list[str | None]:
    return [finding.problem for finding in verify_engine(settings)]


def test_what_was_changed_in_the_engine_is_found(settings: Settings) -> None:
    assert problems(settings) == []
    name = update(settings).collection
    assert problems(settings) == [None]
    with connect(settings) as client:
        client.load_collection(name)
        (row,) = client.query(name, filter='path == "n3.jpg"', output_fields=["*"])
        client.upsert(name, [{**row, "width": 7}])
    assert "1 of 30 rows are not as the tables say" in str(problems(settings))
    with connect(settings) as client:
        client.delete(name, ids=[row["id"]])
    assert "the engine holds 29 rows, of 30" in str(problems(settings))
    again = update(settings)
    assert (again.published, again.info.items) == (True, 30)
    assert problems(settings) == [None]
    # Who does not hold the lock writes nothing: not even the blocks of newer tables.
    store = Store(settings.home)
    blocks = {*store.all_blocks()}
    show(store, 31)
    (finding,) = verify_engine(settings)
    assert "the tables have changed since" in str(finding.note)
    assert {*store.all_blocks()} == blocks
    ledger = Store(settings.home).engine(again.collection) / "ledger.parquet"
    ledger.write_bytes(ledger.read_bytes()[:-40])
    assert "ledger.parquet: damaged" in str(problems(settings))


def test_the_map_is_drawn_from_the_tables_and_of_a_sample_where_they_are_many(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAPPED_ITEMS", 20)
    report = update(settings)
    drawn = update_map(settings, report.build)
    assert drawn.info is not None
    assert (drawn.info.build, drawn.info.items) == (report.info.build, 20)
    # It is that of a publication: nothing takes it for the map of a build that has gone.
    collect(Store(settings.home), ["a"])
    assert drawn.directory.is_dir()


def test_the_status_tells_of_the_engine_also_when_it_is_away(settings: Settings) -> None:
    update(settings)
    status = read_status(settings, BLUE)
    assert status.index is not None
    assert search_line(status.index) == ("by an engine: 30 rows, FLAT, shards 1, recall@10 1.000")
    # A machine that only asks has no ledger; the engine itself tells what it holds.
    shutil.rmtree(Store(settings.home).home / "engine")
    assert read_status(settings, BLUE).index == status.index
    index = settings.index.model_copy(update={"uri": "http://127.0.0.1:1", "timeout": 0.2})
    away = read_status(settings.model_copy(update={"index": index}), BLUE)
    assert (
        away.problem == "http://127.0.0.1:1: the engine is not there: start it, or mend index.uri"
    )
    assert away.sources[0].embedded == 30


def test_the_asset_of_the_index_publishes_to_the_engine_of_its_resource(
    settings: Settings, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "describe_encoder", lambda _: Described)
    monkeypatch.setattr(
        assets, "load_settings_encoder", lambda _, space: VocabularyEncoder(space.dim)
    )
    # The definitions are made from other settings: the resource decides, as in tests.
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace("engine.db", "nowhere.db"))
    library = LibraryResource(config_file=str(file))
    job = build_definitions(load_settings(other), library).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(
            asset_selection={dg.AssetKey("retrieval_index")}
        ).execute_in_process(instance=instance)
    (event,) = result.get_asset_materialization_events()
    told: dict[str, Any] = {
        name: value.value for name, value in event.materialization.metadata.items()
    }
    expected = {
        "engine": "milvus",
        "rows": 30,
        "sent": 30,
        "deleted": 0,
        "shards": 1,
        "index_type": "FLAT",
        "recall_at_10": 1.0,
    }
    assert expected.items() <= told.items()
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"rows_agree": True, "recall_is_enough": True}
    assert (tmp_path / "home" / "engine.db").is_dir()
    assert not (tmp_path / "home" / "nowhere.db").exists()
    assert answering_build(settings) is not None


def test_jobs_answer_from_the_engine_of_the_resource_that_they_are_given(
    settings: Settings, file: Path, tmp_path: Path
) -> None:
    update(settings)
    votes = [(content(name), number < 8) for number, name in enumerate(NAMES[:16])]
    add_judgements(Store(settings.home), "animals", votes)
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace("engine.db", "nowhere.db"))
    definitions = build_definitions(load_settings(other), LibraryResource(config_file=str(file)))
    asked = {"query": {"sort": "name", "text": "", "k": 3}, "recommend": {"name": "animals"}}
    with dg.DagsterInstance.ephemeral() as instance:
        for name, config in asked.items():
            job = definitions.resolve_job_def(f"{name}_job")
            result = job.execute_in_process(
                instance=instance, run_config={"ops": {name: {"config": config}}}
            )
            told = next(
                event.step_output_data.metadata
                for event in result.all_events
                if event.is_successful_output
            )
            assert told["build"].value == str(answering_build(settings))


class Described:
    space = BLUE
