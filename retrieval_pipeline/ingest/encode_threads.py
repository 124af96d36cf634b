"""Encode decoded images on as many threads as the encoder asks for, keep order, measure time."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from retrieval_pipeline.concurrency import Stage, ordered_map
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.errors import VectorError
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.images.decode_pool import Changed, Outcome
from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.images.transform import Decoded, Pixels
from retrieval_pipeline.vectors import Vectors
from retrieval_pipeline.views import View

# Batches in memory per thread: one in work and one waiting. A GPU's batches are large.
AHEAD = 2


@dataclass(frozen=True)
class Embedded:
    """What became of a decoded image.

    Attributes:
        vector: Its unit vector, float32 (dim,); None if only those of views were asked for.
        width: In pixels.
        height: In pixels.
        format: Of the file.
        facts: What its metadata hold, if they were read.
        views: Further views of the image.
        view_vectors: The unit vector of each view, float32 (dim,).
    """

    vector: Vectors | None
    width: int
    height: int
    format: str
    facts: PictureFacts | None = None
    views: tuple[View, ...] = ()
    view_vectors: tuple[Vectors, ...] = ()


Result = Embedded | ImageError | Changed


class EncodeThreads:
    """Runs one encoder on its threads and measures how busy they are."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._width = 1
        self._busy = self._computing = 0.0
        self._images = 0

    @property
    def work(self) -> Stage:
        """Number of threads, and the seconds that they were busy so far."""
        with self._lock:
            return Stage(self._width, self._busy, self._computing)

    @property
    def efficiency(self) -> float | None:
        """Speed as a share of the fastest matrix product; None if it is not known."""
        return self._encoder.efficiency(self._images, self._computing)

    def map(
        self, outcomes: Iterable[Outcome], expected: int | None = None
    ) -> Iterator[list[Result]]:
        """Prepare the threads at once; return an iterator of batches of results, in order.

        Args:
            outcomes: Decoded images and failures. At most `AHEAD` batches per thread are read
                before their results are taken.
            expected: How many there are, if that is known: few are shared out among the threads,
                instead of filling the batch of one.

        Raises:
            EncoderError: The device failed.
        """
        remaining = iter(outcomes)
        stack = ExitStack()
        plan = stack.enter_context(self._encoder.encode_threads())
        self._width = plan.count
        share = self._encoder.batch if expected is None else max(1, -(-expected // plan.count))
        batch = min(share, self._encoder.batch)
        batches = iter(lambda: list(islice(remaining, batch)), [])

        def results() -> Iterator[list[Result]]:
            with stack:
                yield from ordered_map(
                    self._results, batches, threads=plan.count, ahead=AHEAD, enter=plan.enter
                )

        return results()

    def _results(self, outcomes: Sequence[Outcome]) -> list[Result]:
        began, began_computing = time.monotonic(), time.thread_time()
        images = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
        inputs = [pixels for image in images for pixels in _inputs(image)]
        encoded = self._encoded(inputs)
        results: list[Result] = [
            _result(outcome, encoded) if isinstance(outcome, Decoded) else outcome
            for outcome in outcomes
        ]
        with self._lock:
            self._busy += time.monotonic() - began
            self._computing += time.thread_time() - began_computing
            self._images += len(inputs)
        return results

    def _encoded(self, inputs: Sequence[Pixels]) -> Iterator[Vectors | ImageError]:
        """Encode a batch; halve it until the inputs without a finite vector are found."""
        try:
            yield from self._encoder.encode_pixels(inputs)
        except VectorError as error:
            if len(inputs) == 1:
                yield ImageError(Reason.UNSUPPORTED, f"it has no vector: {error}")
                return
            middle = len(inputs) // 2
            yield from self._encoded(inputs[:middle])
            yield from self._encoded(inputs[middle:])


def _inputs(image: Decoded) -> Sequence[Pixels]:
    """Return what is encoded of an image: itself, unless its vector is known, and its views."""
    return image.view_pixels if image.views_only else (image.pixels, *image.view_pixels)


def _result(image: Decoded, encoded: Iterator[Vectors | ImageError]) -> Result:
    """Take the results of an image's inputs; a view without a vector is left out."""
    own = None if image.views_only else next(encoded)
    views = [(view, next(encoded)) for view in image.views]
    if isinstance(own, ImageError):
        return own
    good = [(view, vector) for view, vector in views if not isinstance(vector, ImageError)]
    return Embedded(
        own,
        image.width,
        image.height,
        image.format,
        image.facts,
        tuple(view for view, _ in good),
        tuple(vector for _, vector in good),
    )
