"""Reading a checkpoint through transformers: silently, and with one clear line if it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

from retrieval_pipeline.encoders.checkpoint import Checkpoint
from retrieval_pipeline.errors import EncoderError


@contextmanager
def transformers_loading(checkpoint: Checkpoint) -> Iterator[None]:
    """Silence transformers' reports and progress bars, and turn its errors into one line.

    Raises:
        EncoderError: transformers cannot make sense of the checkpoint's files.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    damage = (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,
    )
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except ImportError as error:
        raise EncoderError(
            f'model "{checkpoint.name}" lacks a package: {_line(error).partition(". ")[0]}'
        ) from error
    except Exception as error:
        # For a file that it cannot parse, tokenizers raises a bare Exception.
        if not isinstance(error, damage) and type(error) is not Exception:
            raise
        raise EncoderError(f'model "{checkpoint.name}" cannot be loaded: {_line(error)}') from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
