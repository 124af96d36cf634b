"""The errors that users can meet. Each message says what happened, where, and what to do."""


class RetrievalError(Exception):
    """Base class: shown to people without a traceback, each argument as one line."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class SettingsError(RetrievalError):
    """The settings file is missing or not valid."""


class SourceError(RetrievalError):
    """A source directory is missing, unreadable or suddenly almost empty."""


class StoreError(RetrievalError):
    """A stored table or file is damaged, cannot be written, or is in use by another run."""


class UnreadableError(StoreError):
    """The operating system refused to read a stored file, which may be sound."""


class EncoderError(RetrievalError):
    """A model cannot be found, loaded or used."""


class VectorError(RetrievalError):
    """A vector is not finite, not of unit length, or not of the expected shape."""


class BuildError(RetrievalError):
    """There is no usable build: none was published yet, or its files are damaged."""


class EngineError(RetrievalError):
    """The engine that holds the index is away, slow, full, of another version, or refuses."""


class NotOnEngineError(EngineError):
    """Only the files of the embedded index can answer this, and an engine keeps the index."""


class QueryError(RetrievalError):
    """A query cannot be answered as it was asked."""


class RecommendError(RetrievalError):
    """A recommender does not exist, has too few votes, or a vote cannot be counted."""


class AlbumError(RetrievalError):
    """An album or a saved search does not exist, or a picture cannot be put into one."""


class EvaluationError(RetrievalError):
    """Labelled queries cannot be read, or they name nothing that is indexed."""


class MapError(RetrievalError):
    """A map cannot be drawn as it was asked, or its files are damaged."""


class CommandError(RetrievalError):
    """A command that the settings name did not run, or failed."""


class Stopped(RetrievalError):
    """A run was asked to stop; its finished work is kept."""
