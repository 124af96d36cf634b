"""What `gc` gives back, what it must not touch, and what is left when it is killed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.items import join, table_digest
from retrieval_pipeline.ingest import small_parts
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.ingest.manifest import FileRow
from retrieval_pipeline.ingest.missing_views import stored_views
from retrieval_pipeline.ingest.sidecars import save_sidecar_rows
from retrieval_pipeline.maintenance import gc
from retrieval_pipeline.maintenance.gc import Freed, collect
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage import store as store_module
from retrieval_pipeline.storage.schemas import QUARANTINE
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import View
from synthetic.tables import (
    content,
    random_vectors,
    write_facts,
    write_manifest,
    write_part,
    write_view_part,
)

DIM = 16
SPACE = VectorSpace("test/model", "r1", DIM, "p")
OTHER = VectorSpace("test/other", "r1", DIM, "p")
NOW = timedelta(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    with store.locked():
        return store


def embed(store: Store, source: str, *names: str, space: VectorSpace = SPACE) -> Path:
    seeds = sum(map(ord, "".join(names)))
    return write_part(store, space, source, names, random_vectors(len(names), DIM, seeds))


def fill(store: Store, source: str, *parts: str) -> None:
    """A source of one file a letter, embedded in these parts."""
    write_manifest(store, source, {f"{name}.jpg": name for name in "".join(parts)})
    for part in parts:
        embed(store, source, *part)


def digest_of(store: Store) -> str:
    """A hash of the items that an index would have."""
    joined = join(store, SPACE, ["a"])
    return table_digest(joined.table(0, len(joined)))


def files(store: Store) -> dict[str, bytes]:
    """Everything below home but the lock."""
    return {
        str(path.relative_to(store.home)): path.read_bytes()
        for path in sorted(store.home.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def reasons(freed: list[Freed]) -> list[str]:
    return [each.why for each in freed]


def problems(store: Store) -> list[str]:
    return [finding.problem for finding in verify(store) if finding.problem]


def test_where_nothing_is_left_over_nothing_goes(store: Store) -> None:
    fill(store, "a", "xyz")
    build_index(store, SPACE, ["a"])
    before = files(store)
    assert collect(store, ["a"], grace=NOW) == []
    assert files(store) == before


def test_the_tables_of_a_source_that_left_the_settings_go(store: Store) -> None:
    fill(store, "a", "xyz")
    before = files(store)
    fill(store, "old", "uvw")
    write_table(store.quarantine(SPACE, "old"), QUARANTINE.empty_table(), SPACE)
    write_facts(store, "old", {})
    save_sidecar_rows(store, "old", [FileRow("u.xmp", 1, 1)])
    freed = collect(store, ["a"])
    tables = [each.path.parent.name for each in freed if each.path.name == "old.parquet"]
    assert sorted(tables) == ["facts", "manifest", "sidecars"]
    assert {each.path.name for each in freed} == {
        "old.parquet",
        "part-000001.parquet",
        "quarantine.parquet",
    }
    assert files(store) == before
    assert not store.embeddings(SPACE, "old").exists()


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    fill(store, "a", "xy", "z")
    fill(store, "old", "uvw")
    embed(store, "a", "gone", space=OTHER)
    (store.home / "manifest" / ".tmp-0123456789ab-a.parquet").write_text("half")
    before = files(store)
    told = collect(store, ["a"], only_space=SPACE, dry_run=True)
    assert files(store) == before
    done = collect(store, ["a"], only_space=SPACE)
    assert [(each.path, each.why) for each in told] == [(each.path, each.why) for each in done]
    assert not any(path.name.startswith(".tmp-") for path in store.home.rglob("*"))


def test_a_check_that_refused_eight_bits_is_not_to_be_made_again(store: Store) -> None:
    fill(store, "a", "xy")
    refused = store.int8_check(replace(SPACE, preprocessing="p int8"))
    refused.parent.mkdir()
    refused.write_text("{}")
    embed(store, "a", "gone", space=OTHER)
    collect(store, ["a"], only_space=SPACE)
    assert store.int8_checks() == [refused]
    assert not store.embeddings(OTHER).exists()


def test_embeddings_that_another_source_needs_stay(store: Store) -> None:
    fill(store, "old", "shared", "gone")
    write_manifest(store, "a", {"copy.jpg": "s"})
    collect(store, ["a"])
    assert embedded_ids(store, SPACE) == {content("s")}
    assert len(join(store, SPACE, ["a"])) == 1
    assert collect(store, ["a"]) == []


def test_many_small_parts_become_one_without_gc_and_a_killed_merge_is_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_parts, "MOST_SMALL", 3)
    fill(store, "a", "xy", "z", "u")
    assert small_parts.merge_small_parts(store) == []
    embed(store, "a", "gone")
    expected = digest_of(store)
    with monkeypatch.context() as patch:

        def die(_: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(small_parts, "discard", die)
        with pytest.raises(KeyboardInterrupt):
            small_parts.merge_small_parts(store)
    (part,) = store.parts(SPACE)
    assert part.name == "part-000001-000004.parquet"
    assert digest_of(store) == expected
    assert embedded_ids(store, SPACE) == {content(name) for name in ("x", "y", "z", "u", "gone")}
    for name in "nmlk":
        embed(store, "a", name)
    assert [part.name for part in small_parts.merge_small_parts(store)] == [
        "part-000001-000008.parquet"
    ]
    assert digest_of(store) == expected
    assert not problems(store)


def test_small_parts_become_one_and_images_that_are_gone_go(store: Store) -> None:
    fill(store, "a", "xy", "z", "u")
    embed(store, "a", "gone")
    digest = digest_of(store)
    freed = collect(store, ["a"])
    assert reasons(freed) == ["4 parts in one: 1 of 5 belong to no file"]
    assert [part.name for part in store.parts(SPACE)] == ["part-000001-000004.parquet"]
    assert digest_of(store) == digest
    assert embedded_ids(store, SPACE) == {content(name) for name in "xyzu"}
    assert embed(store, "a", "n").name == "part-000005.parquet"
    assert not problems(store)
    assert reasons(collect(store, ["a"])) == ["2 parts in one: 1 of 5 belong to no file"]


def test_views_become_one_part_too_without_those_of_images_that_are_gone(store: Store) -> None:
    fill(store, "a", "xy")
    left, right = View(0, 0, 0.25, 1), View(0.75, 0, 0.25, 1)
    for rows in ([("x", left), ("x", right)], [("x", right), ("gone", left)]):
        write_view_part(store, SPACE, "a", rows, random_vectors(2, SPACE.dim))
    assert reasons(collect(store, ["a"])) == ["2 parts in one: 2 of 4 belong to no file"]
    assert [part.name for part in store.view_parts(SPACE)] == ["views-000001-000002.parquet"]
    assert stored_views(store, SPACE) == {content("x"): {left, right}}
    assert not problems(store)
    assert collect(store, ["a"]) == []


def test_compaction_changes_no_build(store: Store) -> None:
    fill(store, "a", "xy", "z")
    first = build_index(store, SPACE, ["a"])
    assert collect(store, ["a"])
    again = build_index(store, SPACE, ["a"])
    assert (again.build, again.published) == (first.build, False)


def test_large_parts_without_waste_are_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "MERGED_ROWS", 4)
    fill(store, "a", "abcd", "ef", "g", "h", "ijkl", "m")
    collect(store, ["a"])
    assert [part.name for part in store.parts(SPACE)] == [
        "part-000001.parquet",
        "part-000002.parquet",
        "part-000003-000004.parquet",
        "part-000005.parquet",
        "part-000006.parquet",
    ]
    assert collect(store, ["a"]) == []


def test_an_image_that_is_embedded_twice_is_kept_once(store: Store) -> None:
    fill(store, "a", "x")
    fill(store, "b", "x")
    collect(store, ["a", "b"])
    assert len(store.parts(SPACE)) == 1
    assert embedded_ids(store, SPACE) == {content("x")}


def test_a_source_whose_manifest_is_missing_keeps_its_embeddings(store: Store) -> None:
    fill(store, "a", "xyz")
    store.manifest("a").unlink()
    assert collect(store, ["a"]) == []
    assert len(embedded_ids(store, SPACE)) == 3


@pytest.mark.parametrize("damaged", ["manifest", "part"])
def test_with_a_damaged_table_nothing_goes_that_it_might_need(store: Store, damaged: str) -> None:
    fill(store, "a", "xyz")
    path = store.manifest("a") if damaged == "manifest" else store.parts(SPACE)[0]
    path.write_bytes(path.read_bytes()[:50])
    fill(store, "b", "u", "v")
    before = files(store)
    with pytest.raises(StoreError, match="damaged"):
        collect(store, ["a", "b"])
    assert files(store) == before


def test_old_builds_and_their_maps_go_unless_they_are_open_or_young(store: Store) -> None:
    builds = []
    for count in range(1, 6):
        fill(store, "a", "abcdef"[:count])
        builds.append(build_index(store, SPACE, ["a"]).build)
        store.map(builds[-1].name).mkdir(parents=True)
    assert not any("newer" in why for why in reasons(collect(store, ["a"])))
    opened = Build.open(builds[1])
    kept = [builds[1], builds[3], builds[4]]
    freed = collect(store, ["a"], grace=NOW, dry_run=True)
    assert freed == collect(store, ["a"], grace=NOW)
    assert [each.path for each in freed if "newer" in each.why] == [builds[0], builds[2]]
    assert store.all_builds() == kept
    assert {directory.name for directory in store.maps()} == {build.name for build in kept}
    del opened


def test_other_models_go_only_on_request_and_never_the_current_build(store: Store) -> None:
    fill(store, "a", "xy")
    write_part(store, OTHER, "a", "xy", random_vectors(2, DIM))
    current = build_index(store, OTHER, ["a"]).build
    assert collect(store, ["a"], grace=NOW) == []
    collect(store, ["a"], only_space=SPACE, grace=NOW)
    assert [path.name for path in store.embedding_spaces()] == [SPACE.key]
    assert store.current_build() == current
    build_index(store, SPACE, ["a"])
    collect(store, ["a"], only_space=SPACE, grace=NOW)
    assert len(store.all_builds()) == 1
    assert not problems(store)


def test_votes_are_never_touched(store: Store) -> None:
    fill(store, "a", "xy")
    votes = store.judgements("taste")
    votes.parent.mkdir()
    votes.write_bytes(b"votes")
    collect(store, [], grace=NOW)
    assert votes.read_bytes() == b"votes"


class Killed(BaseException):
    """Ends `gc` where it stands, as SIGKILL would."""


def test_wherever_it_is_killed_nothing_is_lost_and_the_next_one_finishes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "a", "xy", "z", "uv")
    fill(store, "old", "sgone", "q")
    for names in ("xy", "xyz", "sxyzuv"):
        write_manifest(store, "a", {f"{name}.jpg": name for name in names})
        build_index(store, SPACE, ["a"])
    expected = digest_of(store)

    def strike(at: int) -> Callable[[Path, Path], Path]:
        def replace(self: Path, target: Path) -> Path:
            nonlocal at
            at -= 1
            if at < 0:
                raise Killed
            return original(self, target)

        return replace

    original = Path.replace
    finished = False
    number = 0
    while not finished:
        copy = Store(tmp_path.parent / f"{tmp_path.name}-{number}")
        shutil.copytree(store.home, copy.home)
        with monkeypatch.context() as patch:
            # The dead do not tidy up.
            patch.setattr(store_module, "remove_all", lambda leftovers: None)
            patch.setattr(Path, "replace", strike(number))
            try:
                collect(copy, ["a"], grace=NOW)
            except Killed:
                number += 1
            else:
                finished = True
        assert digest_of(copy) == expected
        for build in copy.all_builds():
            Build.open(build, rehash=True)
        collect(copy, ["a"], grace=NOW)
        assert len(copy.parts(SPACE)) == 2
        assert digest_of(copy) == expected
    assert number >= 8
