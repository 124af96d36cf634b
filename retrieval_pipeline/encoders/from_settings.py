"""The encoder that the settings name, in the revision that their home was embedded with."""

from contextlib import suppress

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.base import Description, Encoder, int8_description, is_int8
from retrieval_pipeline.encoders.hardware import Precision, faithful_format, processor_flags
from retrieval_pipeline.encoders.load import OFFLINE, describe, load_encoder
from retrieval_pipeline.errors import EncoderError, StoreError
from retrieval_pipeline.storage.int8_check import Int8Check, read_int8_check
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace

# The instructions that multiply whole eight bits, as Linux calls them.
VNNI = {"avx512_vnni", "avx_vnni"}


def describe_encoder(settings: Settings) -> Description:
    """Return vector space and transform of the encoder of the settings, without loading it.

    Raises:
        EncoderError: The model cannot be had.
        StoreError: The file of a check of eight bits is damaged.
    """
    plain = faithful_description(settings)
    eight = int8_description(plain)
    return eight if _uses_int8(settings, plain.space, eight.space) else plain


def faithful_description(settings: Settings) -> Description:
    """Return what `describe_encoder` does for a home that does not use eight bits."""
    revision = settings.revision or _former_revision(settings)
    return describe(settings.model, revision=revision, precision=_faithful(settings))


def precision_line(settings: Settings) -> str:
    """Say in one line in which number format the pictures of a home are encoded, and why.

    Raises:
        EncoderError: The model cannot be had.
        StoreError: The file of a check of eight bits is damaged.
    """
    if settings.precision == "reference":
        return "float32, every pixel decoded (reference)"
    if settings.model == OFFLINE:
        return "float32"
    plain = faithful_description(settings)
    eight = int8_description(plain).space
    check = _read_check(settings, eight)
    uses_int8 = _uses_int8(settings, plain.space, eight)
    if check is not None and check.is_used == uses_int8:
        return check.line
    if uses_int8:
        return "int8"
    faithful = faithful_format(settings.device)
    if settings.precision == "int8":
        why = "its check has not been made yet"
    elif faithful is not None and not VNNI & processor_flags():
        why = "this processor has no instructions for it (VNNI)"
    else:
        why = '"auto" checks it in new homes, on processors with VNNI'
    return f"{faithful or 'the fastest that is faithful here'}; int8 is not used: {why}"


def _faithful(settings: Settings) -> Precision:
    return "reference" if settings.precision == "reference" else "auto"


def _uses_int8(settings: Settings, plain: VectorSpace, eight: VectorSpace) -> bool:
    """Tell whether a home has chosen vectors of eight bits (see `ingest.int8_check`)."""
    if settings.precision == "reference" or settings.model == OFFLINE:
        return False
    store = Store(settings.home)
    check = _read_check(settings, eight)
    # Who only reads a remote home has its builds, but not the tables.
    if not (store.builds(eight) if check is None else check.is_used):
        return False
    # What was asked for once need not be kept, if the faithful vectors are there as well.
    return settings.precision == "int8" or not store.parts(plain)


def _read_check(settings: Settings, eight: VectorSpace) -> Int8Check | None:
    """Return the check of eight bits of a home, as it counts with these settings."""
    check = read_int8_check(Store(settings.home).int8_check(eight))
    # Who asks for eight bits takes them also where "auto" has found that they are hardly faster.
    if check is None or settings.precision != "int8":
        return check
    return check.model_copy(update={"asked": True})


def _former_revision(settings: Settings) -> str | None:
    """Return the revision that a home of an earlier version keeps; None for today's.

    The offline model has got a better classifier, whose vectors live in another space. A home with
    embeddings of the former one keeps it, instead of embedding every picture again unasked.
    """
    if settings.model != OFFLINE:
        return None
    from retrieval_pipeline.encoders.offline import FORMER, NEWEST

    store = Store(settings.home)
    with suppress(StoreError):  # who needs the home says what is wrong with it
        store.current_build()  # brings the copy of a remote home up to date
    known = {path.name for path in store.embedding_spaces()}
    known |= {build.parent.name for build in store.all_builds()}

    def has(revision: str) -> bool:
        try:
            described = describe(OFFLINE, revision=revision, precision=_faithful(settings))
        except EncoderError:  # its package is not installed here
            return False
        return described.space.key in known

    # A home that was embedded with today's as well has moved on, and does not go back.
    return FORMER if known and has(FORMER) and not has(NEWEST) else None


def load_settings_encoder(settings: Settings, space: VectorSpace) -> Encoder:
    """Load the encoder of the settings in the revision that was described before.

    Args:
        settings: Name the model and the device.
        space: The vector space that `describe_encoder` returned.

    Raises:
        EncoderError: The model or the device cannot be had.
    """
    return load_encoder(
        settings.model,
        revision=space.revision,
        device=settings.device,
        precision="int8" if is_int8(space) else _faithful(settings),
    )
