from retrieval_pipeline.concurrency import Stage
from retrieval_pipeline.ingest.bottleneck import Timings


def timings(
    decode: Stage, encode: Stage, writing: float = 0.0, efficiency: float | None = None
) -> Timings:
    return Timings(1.0, 100.0, decode, encode, writing, cores=8, efficiency=efficiency)


def test_an_encoder_that_waits_for_busy_decoders_wants_more_of_them() -> None:
    found = timings(Stage(4, 400.0, 390.0), Stage(2, 50.0, 10.0))
    assert found.bound == "decode"
    assert found.hint == (
        "decode-bound: the encoder waits 75% of the time: add workers, if there are cores for them"
    )


def test_decoders_that_wait_themselves_are_told_from_slow_ones() -> None:
    found = timings(Stage(4, 400.0, 40.0), Stage(2, 50.0, 10.0))
    assert found.hint == (
        "decode-bound: the encoder waits 75% of the time for files that come slowly, "
        "or for busy processors: add workers"
    )


def test_decoders_that_wait_for_the_encoder_make_it_the_bound() -> None:
    found = timings(Stage(4, 100.0, 100.0), Stage(2, 198.0, 10.0))
    assert found.hint == (
        "encode-bound: the encoder has work 99% of the time, the decode workers 25%"
    )


def test_where_both_share_full_processors_the_greater_part_is_named() -> None:
    found = timings(Stage(8, 790.0, 240.0), Stage(8, 790.0, 520.0), efficiency=0.871)
    assert found.hint == (
        "encode-bound: of the processors' time 30% goes into decoding, 65% into encoding "
        "(at 87% of the peak): more cores or a GPU would help"
    )
    assert timings(Stage(8, 790.0, 520.0), Stage(8, 790.0, 240.0)).bound == "decode"


def test_a_slow_disk_for_the_tables_is_seen() -> None:
    found = timings(Stage(8, 10.0, 10.0), Stage(8, 10.0, 10.0), writing=60.0)
    assert found.hint == "write-bound: 60% of the time goes into writing tables"


def test_a_run_that_was_over_at_once_divides_by_nothing() -> None:
    nothing = Stage(2, 0.0, 0.0)
    assert Timings(0.0, 0.0, nothing, nothing, 0.0, cores=2).hint.startswith("encode-bound")
