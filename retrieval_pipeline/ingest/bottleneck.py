"""Where the time of embedding goes: which stage holds the others up, and what would help."""

from dataclasses import dataclass
from typing import Literal

from retrieval_pipeline.concurrency import Stage

# The processors are the limit when the stages keep them so busy.
FULL = 0.8
# Tables are written seldom; if it takes more than this share of the time, the disk is slow.
SLOW_WRITING = 0.3
# A worker that computes for less than this share of its time waits for something else.
IDLE = 0.5


@dataclass(frozen=True)
class Timings:
    """Where the time went while images were embedded, in seconds.

    Attributes:
        loading: Until the model was there; decoding began meanwhile.
        elapsed: From then on.
        decode: Reading and decoding, in worker processes.
        encode: Computing vectors.
        writing: Publishing tables.
        cores: That this process may use.
        efficiency: Speed of the vectors' computation as a share of the fastest matrix product on
            the same cores, None if that is unknown.
    """

    loading: float
    elapsed: float
    decode: Stage
    encode: Stage
    writing: float
    cores: int
    efficiency: float | None = None

    def busy(self, stage: Stage) -> float:
        """Return the share of the time in which a stage had work; the rest it waited."""
        return min(stage.busy / max(stage.width * self.elapsed, 1e-9), 1.0)

    def load(self, stage: Stage) -> float:
        """Return the share of the processors' time that a stage took."""
        return stage.computing / max(self.cores * self.elapsed, 1e-9)

    @property
    def seconds(self) -> dict[str, float]:
        """Each figure by its name."""
        return {
            "loading": round(self.loading, 3),
            "elapsed": round(self.elapsed, 3),
            "decoding": round(self.decode.busy, 3),
            "decoding_processor": round(self.decode.computing, 3),
            "encoding": round(self.encode.busy, 3),
            "encoding_processor": round(self.encode.computing, 3),
            "writing": round(self.writing, 3),
        }

    @property
    def full(self) -> bool:
        """Whether the processors had no time left."""
        return self.load(self.decode) + self.load(self.encode) > FULL

    @property
    def bound(self) -> Literal["decode", "encode", "write"]:
        """The stage that the others wait for."""
        if self.writing > SLOW_WRITING * self.elapsed:
            return "write"
        measure = self.load if self.full else self.busy
        return "decode" if measure(self.decode) > measure(self.encode) else "encode"

    @property
    def hint(self) -> str:
        """One line: what bounds the speed, and what would help."""
        return f"{self.bound}-bound: {self._explanation}"

    @property
    def _explanation(self) -> str:
        if self.bound == "write":
            return f"{self.writing / self.elapsed:.0%} of the time goes into writing tables"
        near = "" if self.efficiency is None else f" (at {self.efficiency:.0%} of the peak)"
        if self.full:
            return (
                f"of the processors' time {self.load(self.decode):.0%} goes into decoding, "
                f"{self.load(self.encode):.0%} into encoding{near}: more cores or a GPU would help"
            )
        if self.bound == "encode":
            return (
                f"the encoder has work {self.busy(self.encode):.0%} of the time{near}, "
                f"the decode workers {self.busy(self.decode):.0%}"
            )
        waits = f"the encoder waits {1 - self.busy(self.encode):.0%} of the time"
        if self.decode.computing < IDLE * self.decode.busy:
            return f"{waits} for files that come slowly, or for busy processors: add workers"
        return f"{waits}: add workers, if there are cores for them"
