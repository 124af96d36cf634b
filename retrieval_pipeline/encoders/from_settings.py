"""The encoder that the settings name, in the revision that their home was embedded with."""

from contextlib import suppress

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.encoders.load import OFFLINE, describe, load_encoder
from retrieval_pipeline.errors import EncoderError, StoreError
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace


def describe_encoder(settings: Settings) -> Description:
    """Return vector space and transform of the encoder of the settings, without loading it.

    Raises:
        EncoderError: The model cannot be had.
    """
    revision = settings.revision or _former_revision(settings)
    return describe(settings.model, revision=revision, precision=settings.precision)


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
            described = describe(OFFLINE, revision=revision, precision=settings.precision)
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
        precision=settings.precision,
    )
