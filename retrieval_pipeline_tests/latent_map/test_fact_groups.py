from datetime import datetime
from pathlib import Path

import numpy as np

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.latent_map.drawing import GREY, colour_of, fact_groups
from retrieval_pipeline.latent_map.fact_groups import groupings
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part

SPACE = VectorSpace("test/model", "r1", 8, "p")


def test_images_are_grouped_by_year_and_camera_and_what_is_unknown_is_grey(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [f"{number}.jpg" for number in range(5)]
    years, cameras = (2019, 1969, None, 2019, 2020), ("Nikon", "Canon", "Canon", None, "Canon")
    write_manifest(store, "a", {name: name for name in names})
    write_part(store, SPACE, "a", names, random_vectors(5, 8))
    build_index(store, SPACE, ["a"])
    assert groupings(open_current(store), np.arange(5)) == {}
    facts = {
        name: PictureFacts(year and datetime(year, 12, 31, 23), None, Origin.EXIF, camera=camera)
        for name, year, camera in zip(names, years, cameras, strict=True)
    }
    write_facts(store, "a", facts)
    build_index(store, SPACE, ["a"])
    found = groupings(open_current(store), np.arange(5))
    # No picture knows its country.
    assert list(found) == ["year", "camera"]
    assert found["year"].names == ("1969", "2019", "2020", "unknown")
    assert found["year"].group_of.tolist() == [1, 0, 3, 1, 2]
    assert found["camera"].names == ("Canon", "Nikon", "unknown")
    assert [(group.name, group.colour, group.images) for group in fact_groups(found["camera"])] == [
        ("Canon", colour_of(0), 3), ("Nikon", colour_of(1), 1), ("unknown", GREY, 1),
    ]  # fmt: skip
