"""What there is to choose from, counted."""

from datetime import datetime
from pathlib import Path

import numpy as np

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.search.facets import FacetCounter
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part


def test_facets_count_what_passes_and_folders_are_those_below_one(tmp_path: Path) -> None:
    store, space = Store(tmp_path), VectorSpace("offline", "r", 8, "p")
    facts = {
        "a/b/1.jpg": PictureFacts(
            taken_at=datetime(2019, 12, 31, 23), taken_from=Origin.EXIF, camera="Nikon D750"
        ),
        "a/b/2.jpg": PictureFacts(taken_at=datetime(2020, 1, 1), taken_from=Origin.EXIF),
        "a/c/3.jpg": PictureFacts(camera="Nikon D750"),
        "ab/4.jpg": PictureFacts(),
        "5.jpg": PictureFacts(camera="Canon EOS R6"),
    }
    names = [f"n{number}" for number in range(len(facts))]
    write_manifest(store, "photos", dict(zip(facts, names, strict=True)))
    write_part(store, space, "photos", names, random_vectors(len(names), 8))
    write_facts(store, "photos", facts)
    build_index(store, space, ["photos"])
    build = open_current(store)
    counter = FacetCounter(build)
    all_of_them = counter.count(None)
    assert all_of_them.sources == {"photos": 5}
    assert all_of_them.folders == {"a": 3, "ab": 1}
    assert list(all_of_them.years.items()) == [("2020", 1), ("2019", 1)]
    assert list(all_of_them.cameras.items()) == [("Nikon D750", 2), ("Canon EOS R6", 1)]
    assert sum(all_of_them.formats.values()) == 5
    assert counter.count(None, "a").folders == {"b": 2, "c": 1}
    paths = [item.locations[0].path for item in build.records(range(len(build)))]
    some = counter.count(np.array([path.startswith("a/b/") for path in paths]))
    assert some.folders == {"a": 2}
    assert some.cameras == {"Nikon D750": 1}
