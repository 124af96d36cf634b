"""Pictures and tables on the pages of the assets."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.ingest.quarantine import Quarantine
from retrieval_pipeline.orchestration.previews import failed_sheet, failed_table
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.library import settings_of


def test_of_failed_pictures_what_can_be_drawn_is_shown_with_its_name(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (400, 300), (220, 20, 20)).save(pictures / "half.jpg")
    data = (pictures / "half.jpg").read_bytes()
    start = data.index(b"\xff\xda")
    (pictures / "half.jpg").write_bytes(data[: start + (len(data) - start) // 2])
    # As it is, this one could be drawn; it is not tried again, since it killed a worker.
    Image.new("RGB", (400, 300), (20, 220, 20)).save(pictures / "deadly.png")
    settings = settings_of(tmp_path / "home", pictures=pictures)
    store, space = Store(settings.home), VectorSpace("model", "r1", 4, "p")
    quarantine = Quarantine.read(store, space, "pictures", set())
    for name, reason in (("half.jpg", Reason.TRUNCATED), ("deadly.png", Reason.CRASHED)):
        content = content_id_of_file(pictures / name)
        quarantine.add(content, name, ImageError(reason, "so it was"))
    quarantine.publish()

    shown = failed_sheet(store, settings, space, "pictures").value
    assert shown is not None
    png = base64.b64decode(shown.partition("base64,")[2].rstrip(")"))
    sheet = np.asarray(Image.open(BytesIO(png)).convert("RGB"), int)
    red, green = (
        (np.abs(sheet - colour).max(axis=-1) < 24).sum()
        for colour in ((220, 20, 20), (20, 220, 20))
    )
    assert red > 10_000
    assert green == 0
    records = failed_table(store, space, "pictures").records
    assert [each.data["path"] for each in records] == ["deadly.png", "half.jpg"]
