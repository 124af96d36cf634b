"""The files that the index names, and whether they may be handed out."""

from retrieval_pipeline.config import Settings
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.storage.remote import Place, Remote


class GoneError(Exception):
    """No file of a picture can be handed out; the message says why."""


def file_of(settings: Settings, location: Location) -> Place:
    """Return the file of a location, with all links resolved, if it lies inside its source.

    What lies behind a link inside a source that follows links belongs to that source.

    Raises:
        GoneError: It does not, or is no longer there.
    """
    source = next((each for each in settings.sources if each.name == location.source), None)
    if source is None:
        raise GoneError(f'the source "{location.source}" is not in the settings any more')
    if isinstance(source.path, Remote):
        return _remote_file(source.path, to_path(location.path))
    try:
        root = source.path.resolve(strict=True)
        path = (source.path / to_path(location.path)).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise GoneError("the file is not there any more") from None
    if not path.is_relative_to(root) and not source.follow_symlinks:
        raise GoneError("the file lies outside of its source")
    if not path.is_file():
        raise GoneError("it is not a regular file")
    return path


def _remote_file(root: Remote, path: str) -> Remote:
    """Return a file below a root that knows no links."""
    if ".." in path.split("/"):
        raise GoneError("the file lies outside of its source")
    file = root / path
    if not file.exists():
        raise GoneError("the file is not there any more")
    return file
