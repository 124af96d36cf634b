"""The encoder that the settings name."""

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.encoders.load import describe, load_encoder
from retrieval_pipeline.vectors import VectorSpace


def describe_encoder(settings: Settings) -> Description:
    """Return vector space and transform of the encoder of the settings, without loading it.

    Raises:
        EncoderError: The model cannot be had.
    """
    return describe(settings.model, revision=settings.revision, precision=settings.precision)


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
