"""Tells which stage of embedding (decode, encode, write) limits the speed, and what would help."""

from dataclasses import dataclass
from typing import Literal

from retrieval_pipeline.concurrency import Stage

# The processors count as fully used above this share of their time.
FULL = 0.8
# Tables are written seldom: if writing takes more than this share of the time, the disk is slow.
SLOW_WRITING = 0.3
# A decode worker that computes for less than this share of its busy time waits for files.
IDLE = 0.5


@dataclass
class MachineWork:
    """What one machine of a cluster did, summed over its actors.

    Attributes:
        decoded: Pictures that it decoded, or could not decode.
        decode_seconds: Seconds that its decoders worked.
        encoded: Pictures that it encoded.
        encode_seconds: Seconds that its encoders worked, with the loading of the model.
    """

    decoded: int = 0
    decode_seconds: float = 0.0
    encoded: int = 0
    encode_seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"decoded {self.decoded:,} pictures in {self.decode_seconds:.1f} s, "
            f"encoded {self.encoded:,} in {self.encode_seconds:.1f} s"
        )


@dataclass(frozen=True)
class Timings:
    """Where the time went while images were embedded, in seconds.

    Attributes:
        loading: From the start until the model was loaded; decoding begins meanwhile.
        elapsed: From the moment the model was loaded until the end.
        decode: Reading and decoding, in worker processes.
        encode: Computing vectors.
        writing: Publishing tables.
        cores: Number of processor cores that this process may use.
        efficiency: Speed of encoding as a share of the fastest matrix product on the same cores;
            None if it is not known.
    """

    loading: float
    elapsed: float
    decode: Stage
    encode: Stage
    writing: float
    cores: int
    efficiency: float | None = None

    def busy(self, stage: Stage) -> float:
        """Return the share of `elapsed` in which the threads or processes of a stage had work."""
        return min(stage.busy / max(stage.width * self.elapsed, 1e-9), 1.0)

    def load(self, stage: Stage) -> float:
        """Return the share of the time of all cores that a stage used."""
        return stage.computing / max(self.cores * self.elapsed, 1e-9)

    @property
    def seconds(self) -> dict[str, float]:
        """Every measured time in seconds, by name, for reports and Dagster's metadata."""
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
        """True if decoding and encoding together kept the processors fully busy."""
        return self.load(self.decode) + self.load(self.encode) > FULL

    @property
    def bound(self) -> Literal["decode", "encode", "write"]:
        """The stage that limits the speed."""
        if self.writing > SLOW_WRITING * self.elapsed:
            return "write"
        measure = self.load if self.full else self.busy
        return "decode" if measure(self.decode) > measure(self.encode) else "encode"

    @property
    def hint(self) -> str:
        """One line for people: which stage limits the speed, and what would help."""
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
