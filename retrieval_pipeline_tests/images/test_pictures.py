import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.pictures import picture, pictures
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline_tests.support.decoding import one_bit_png

LIMITS = Limits()


@pytest.fixture
def teal(tmp_path: Path) -> Path:
    path = tmp_path / "teal.png"
    Image.new("RGB", (40, 20), "teal").save(path)
    return path


def test_pictures_come_in_order_with_the_reason_of_those_that_cannot_be_used(
    tmp_path: Path, teal: Path
) -> None:
    (tmp_path / "text.jpg").write_text("text")
    jobs = [Job(teal), Job(tmp_path / "text.jpg"), Job(teal, content_id_of_file(teal))]
    first, second, third = pictures(jobs, Fit(10), LIMITS)
    assert isinstance(second, ImageError) and second.reason == Reason.NOT_AN_IMAGE
    for each in (first, third):
        assert not isinstance(each, ImageError)
        np.testing.assert_array_equal(each.pixels, np.full((5, 10, 3), (0, 128, 128)))


def test_a_file_that_holds_another_picture_by_now_is_not_shown(tmp_path: Path, teal: Path) -> None:
    content = content_id_of_file(teal)
    Image.new("RGB", (40, 20), "red").save(teal)
    for path in (teal, tmp_path / "gone.png"):
        with pytest.raises(ImageError, match="another picture"):
            picture(Job(path, content), Fit(10), LIMITS)


def test_a_picture_takes_no_memory_of_the_process_that_shows_it(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(one_bit_png(17_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="too large"):
        picture(Job(bomb), Fit(10), Limits(memory_mb=250))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


FORKED = """
import os, sys
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import picture
from retrieval_pipeline.images.transform import Fit

def show():
    return picture(Job(sys.argv[1]), Fit(10), Limits()).pixels.shape

assert show() == (5, 10, 3)
child = os.fork()
assert show() == (5, 10, 3)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert show() == (5, 10, 3)
print("shown", flush=True)
"""


def test_a_forked_process_starts_workers_of_its_own(teal: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, os.fspath(teal)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("shown\nshown\n", "")
