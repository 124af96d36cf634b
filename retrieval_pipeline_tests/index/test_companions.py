"""Files of one photograph in a build: one item, which lists the others and is found by them."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.companions import COMPANION_COLUMNS, check_companions
from retrieval_pipeline.pipeline.validation import check_build, read_coverage
from retrieval_pipeline.search.filters import file_test, passing
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import (
    random_vectors,
    write_facts,
    write_manifest,
    write_part,
    write_sidecars,
)

SPACE = VectorSpace("made-up", "r1", 16, "p")
# Paths and their contents.
FILES = {
    "P1.jpg": "jpg",
    "P1.nef": "raw",
    "P2.nef": "lone raw",
    "IMG_1234.HEIC": "original",
    "IMG_E1234.JPG": "edit",
    "copy/IMG_E1234.JPG": "edit",
    "z.png": "other",
}
SIDECARS = ("P1.nef.xmp", "IMG_1234.MOV", "P2.xmp")
# What is one item: the first files of each, with their companions.
GROUPS = {
    "IMG_E1234.JPG": ["original IMG_1234.HEIC", "video IMG_1234.MOV"],
    "P1.jpg": ["raw P1.nef", "sidecar P1.nef.xmp"],
    "P2.nef": ["sidecar P2.xmp"],
    "z.png": [],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    write_manifest(store, "a", FILES, grouped=True)
    write_sidecars(store, "a", SIDECARS)
    # The RAW files were embedded before they became companions.
    names = sorted({*FILES.values()})
    write_part(store, SPACE, "a", names, random_vectors(len(names), SPACE.dim, seed=1))
    return store


def build_of(store: Store) -> Build:
    """The build of these tables, which must agree with them."""
    build_index(store, SPACE, ["a"])
    build = open_current(store)
    rows, _ = check_build(build, read_coverage(store, SPACE, ["a"]), 0.9)
    assert rows.passed, rows.found
    return build


def groups_of(build: Build) -> dict[str, list[str]]:
    return {
        item.locations[0].path: [
            f"{each.kind} {each.file.location.path}" for each in item.companions
        ]
        for item in build.records(range(len(build)))
    }


def found(build: Build, query: Query) -> list[str]:
    """The files that are shown for a query with filters alone."""
    flags = passing(build, query)
    assert flags is not None
    passes = file_test(query, knows_facts=True)
    return [item.first(passes).path for item in build.records(np.flatnonzero(flags))]


def test_a_build_has_one_item_for_a_photograph_and_lists_its_other_files(store: Store) -> None:
    build = build_of(store)
    assert groups_of(build) == GROUPS
    assert build.info.locations == 5  # the edited copy has two files
    assert not build_index(store, SPACE, ["a"]).published
    write_sidecars(store, "a", [*SIDECARS, "z.xmp"])
    assert groups_of(build_of(store)) == GROUPS | {"z.png": ["sidecar z.xmp"]}


def test_an_item_is_found_by_its_companions(store: Store) -> None:
    build = build_of(store)
    assert found(build, Query(paths=("*.nef",))) == ["P1.jpg", "P2.nef"]
    assert found(build, Query(paths=("*.MOV",))) == ["IMG_E1234.JPG"]
    assert found(build, Query(paths=("copy/*",))) == ["copy/IMG_E1234.JPG"]
    assert found(build, Query(formats=("nef",))) == ["P1.jpg"]
    assert found(build, Query(formats=("heic",), sources=("a",))) == ["IMG_E1234.JPG"]
    assert len(found(build, Query(formats=("jpeg",)))) == 4  # as the part says of all


def test_files_of_different_times_or_without_the_setting_are_items_of_their_own(
    store: Store,
) -> None:
    dates = {"P1.jpg": datetime(2019, 8, 12), "P1.nef": datetime(2021, 8, 12)}
    facts = {
        path: PictureFacts(taken_at=date, taken_from=Origin.EXIF) for path, date in dates.items()
    }
    write_facts(store, "a", facts)
    apart = groups_of(build_of(store))
    assert apart == GROUPS | {"P1.jpg": [], "P1.nef": ["sidecar P1.nef.xmp"]}
    write_manifest(store, "a", FILES)
    assert groups_of(build_of(store)) == {path: [] for path in FILES if path[:4] != "copy"}


def test_a_damaged_table_of_companions_is_refused(store: Store) -> None:
    rows = build_of(store).companions.to_pylist()
    changes = ({"item": 4}, {"item": -1}, {"kind": "nonsense"})
    for change in changes:
        damaged = (
            [rows[0] | change, *rows[1:]] if change == {"item": -1} else [*rows, rows[-1] | change]
        )
        table = pa.Table.from_pylist(damaged, schema=COMPANION_COLUMNS)
        with pytest.raises(BuildError, match="impossible value"):
            check_companions(table, 4, Path("companions.arrow"))
