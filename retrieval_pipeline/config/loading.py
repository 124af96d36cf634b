"""Finding and reading the settings file; `validation.py` checks what it holds."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings

FILE_NAME = "retrieval.toml"


def named_settings_file(given: Path | None = None) -> Path | None:
    """Return the settings file that somebody named: `given`, else the one of $RETRIEVAL_CONFIG."""
    if given is not None:
        return given
    named = os.environ.get("RETRIEVAL_CONFIG")
    return Path(named) if named else None


def find_settings_file(given: Path | None = None) -> Path | None:
    """Return the settings file to read, or None if there is none.

    A named file counts, whether it exists or not: `given`, then that of $RETRIEVAL_CONFIG. Else
    retrieval.toml is looked for in the working directory and in those above it, and at last in the
    user's own configuration directory (platformdirs).

    Raises:
        SettingsError: The file was found by looking, and belongs to another user. Settings can name
            commands, and anybody may write into a directory such as /tmp.
    """
    if named := named_settings_file(given):
        return named
    for file in _looked_for():
        try:
            owner = file.stat().st_uid
        except OSError:
            continue
        if owner != os.geteuid():
            raise SettingsError(
                f"{file.absolute()} belongs to another user, and settings can name commands: if "
                "you trust it, name it with --config"
            )
        return file
    return None


def users_settings_file() -> Path:
    """Return where a user keeps settings for every directory, such as ~/.config/retrieval."""
    from platformdirs import user_config_path  # most settings files are found without it

    return user_config_path("retrieval", appauthor=False) / FILE_NAME


def _looked_for() -> Iterator[Path]:
    yield Path(FILE_NAME)
    yield from (parent / FILE_NAME for parent in Path.cwd().parents)
    yield users_settings_file()


def load_settings(given: Path | None = None) -> "Settings":
    """Read and validate the settings; relative paths are relative to the file.

    Raises:
        SettingsError: One line for each thing that is wrong, with its key and what is allowed.
    """
    # These take longer to import than to do their work: --help does without them.
    import tomllib

    from retrieval_pipeline.config.validation import validated

    file = find_settings_file(given)
    if file is None:
        raise SettingsError(
            f"no settings file: looked for {FILE_NAME} in {Path.cwd()} and above, in "
            f"$RETRIEVAL_CONFIG (not set), and for {users_settings_file()}. Make one with "
            "`retrieval init DIRECTORY`, or name one with --config"
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            f"no settings file at {file.absolute()}: make one with `retrieval init DIRECTORY`, "
            "or name another with --config"
        ) from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{file}: not valid TOML: brackets within brackets") from None
    except ValueError:
        # Python's own limit on the length of numbers; tomllib passes its error on.
        raise SettingsError(f"{file}: a number has thousands of digits") from None
    return validated(values, file)
