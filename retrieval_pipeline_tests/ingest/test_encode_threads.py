import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.decode_pool import Changed, Outcome
from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.images.transform import Decoded, Pixels
from retrieval_pipeline.ingest.encode_threads import Embedded, EncodeThreads, Result
from retrieval_pipeline_tests.support.encoders import MeanColour


def image(red: int, green: int = 0) -> Decoded:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = red, green
    return Decoded(pixels, 8, 8, "PNG")


def results(encoder: MeanColour, outcomes: Sequence[Outcome]) -> list[Result]:
    return [result for batch in EncodeThreads(encoder).map(outcomes) for result in batch]


def hues(found: Sequence[Result]) -> list[float]:
    """Green over red of each vector, which tells the images apart."""
    assert all(isinstance(result, Embedded) for result in found)
    return [float(r.vector[1] / r.vector[0]) for r in found if isinstance(r, Embedded)]


def test_each_image_keeps_its_place_whatever_became_of_the_others() -> None:
    broken = ImageError(Reason.TRUNCATED, "cut")
    outcomes: list[Outcome] = [broken, image(10, 1), Changed(), broken, image(10, 2), image(10, 3)]
    found = results(MeanColour(batch=4), outcomes)
    assert (found[0], found[2], found[3]) == (broken, Changed(), broken)
    assert hues([found[1], found[4], found[5]]) == pytest.approx([0.1, 0.2, 0.3])


def test_a_batch_of_broken_images_alone_reaches_no_encoder() -> None:
    def never(_: Sequence[Pixels]) -> None:
        raise AssertionError("there is nothing to encode")

    broken = ImageError(Reason.TRUNCATED, "cut")
    assert results(MeanColour(before=never), [broken] * 10) == [broken] * 10


def test_an_image_without_a_vector_costs_none_of_its_batch() -> None:
    outcomes = [image(10, number) for number in range(9)]
    outcomes[5] = image(0)
    found = results(MeanColour(batch=9), outcomes)
    error = found.pop(5)
    assert isinstance(error, ImageError)
    assert "zero or not finite" in error.detail
    assert hues(found) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8])


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_no_image_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes: list[int] = []

    def room_for_three(pixels: Sequence[Pixels]) -> None:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    encoder = MeanColour(batch=8, threads=1, before=room_for_three)
    with caplog.at_level(logging.WARNING, "retrieval_pipeline"):
        found = results(encoder, [image(100, number) for number in range(40)])
    assert hues(found) == pytest.approx([number / 100 for number in range(40)])
    # What did not fit is not tried again.
    assert sizes[:2] == [8, 4]
    assert max(sizes[2:]) == encoder.batch == 2
    assert "8 images at once need more memory than there is: 4 from now on" in caplog.messages


def test_a_device_without_room_for_one_image_is_said() -> None:
    def full(_: Sequence[Pixels]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EncoderError, match="too little memory for a single image"):
        results(MeanColour(before=full), [image(1)] * 10)


def test_a_device_that_fails_is_one_line_and_a_mistake_is_none() -> None:
    def gone(_: Sequence[Pixels]) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be...")

    def mistaken(_: Sequence[Pixels]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(EncoderError, match=r"failed \(CUDA error: unspecified launch failure\)"):
        results(MeanColour(before=gone), [image(1)])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        results(MeanColour(before=mistaken), [image(1)])


def test_the_lanes_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)
    found = results(MeanColour(batch=1, before=lambda _: both.wait() and None), [image(5)] * 8)
    assert len(found) == 8


def test_outcomes_are_taken_only_so_far_ahead_as_the_lanes_need() -> None:
    taken: list[int] = []

    def outcomes() -> Iterator[Outcome]:
        for number in range(1_000):
            taken.append(number)
            yield image(5)

    batches = EncodeThreads(MeanColour(batch=2, threads=2)).map(outcomes())
    assert len(next(batches)) == 2
    assert len(taken) < 30


def test_the_work_of_the_lanes_is_counted() -> None:
    threads = EncodeThreads(MeanColour(threads=2))
    list(threads.map([image(5)] * 40))
    assert threads.work.width == 2
    assert threads.work.computing > 0
    assert threads.work.busy > 0
