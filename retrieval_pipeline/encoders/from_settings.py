"""The encoder that the settings name."""

from retrieval_pipeline.config import Settings
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.encoders.load import describe, load_encoder
from retrieval_pipeline.vectors import VectorSpace


def describe_encoder(settings: Settings) -> Description:
    """Tell what the encoder of the settings makes, without loading it."""
    return describe(settings.model, revision=settings.revision, precision=settings.precision)


def load_settings_encoder(settings: Settings, space: VectorSpace) -> Encoder:
    """Load the encoder of the settings as it was described, whatever the hub has by now.

    Args:
        settings: Say which model, and on which device.
        space: Of what `describe_encoder` told before.

    Raises:
        EncoderError: The model or the device cannot be had.
    """
    return load_encoder(
        settings.model,
        revision=space.revision,
        device=settings.device,
        precision=settings.precision,
    )
