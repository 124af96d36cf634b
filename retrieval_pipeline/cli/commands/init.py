"""`retrieval init`: write a settings file."""

import os
import shlex
import sys
from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import plural, report, tell
from retrieval_pipeline.cli.parameters import FilePath
from retrieval_pipeline.config.extensions import PICTURES
from retrieval_pipeline.config.loading import (
    FILE_NAME,
    load_settings,
    named_settings_file,
    users_settings_file,
)
from retrieval_pipeline.config.template import names_for, settings_text
from retrieval_pipeline.errors import RetrievalError, SettingsError
from retrieval_pipeline.paths import real_path, shell_quoted, to_text

# Below the settings file.
HOME = "retrieval-home"

# Stands in the settings file before the reason for the model.
CHOSEN = "Chosen by `retrieval init`: "

# Longest wait for an answer of the model hub.
HUB_SECONDS = 3.0


@click.command()
@click.argument("directories", nargs=-1, type=FilePath())
@click.option("--model", help="Encoder to write into the file.  [default: what suits the machine]")
@click.option("--home", help=f"Directory for tables and indexes.  [default: {HOME}]")
@click.option("--force", is_flag=True, help="Replace a settings file that exists.")
@config_option
def init(
    directories: tuple[Path, ...],
    model: str | None,
    home: str | None,
    force: bool,
    config: Path | None,
) -> None:
    """Write a settings file for these directories.

    Without DIRECTORIES it asks for them. If the working directory is one of them or lies in one,
    nothing is written into it: the settings become your own file, which counts everywhere, and the
    tables go to your data directory. --config and --home say otherwise.
    """
    file = named_settings_file(config) or Path(FILE_NAME)
    if not directories:
        _check_free(file, force=force)
        directories = _asked_for()
    if named_settings_file(config) is None and any(map(_holds_here, directories)):
        file = users_settings_file()
        from platformdirs import user_data_path

        home = home or str(user_data_path("retrieval", appauthor=False))
    home = home or HOME
    _check_free(file, force=force)
    from retrieval_pipeline.storage.atomic import replacing

    # Links are not resolved: the user knows the directory by the name that they typed.
    roots = [Path(os.path.abspath(path)) for path in directories]  # noqa: PTH100
    for root in roots:
        if not root.is_dir():
            raise RetrievalError(f"{root} is not a directory")
        if roots.count(root) > 1:
            raise RetrievalError(f"{root} is given twice: name each directory once")
        _check_text("the name of a directory", str(root))
    _check_text("--home", home)
    _check_text("--model", model or "")
    pairs = list(zip(names_for(roots), roots, strict=True))
    about: list[str] = []
    if model is None:
        model, about = _chosen()
    with replacing(real_path(file)) as temporary:
        text = settings_text(pairs, model=model, home=home, about=about)
        temporary.write_text(text, encoding="utf-8")
        try:
            load_settings(temporary)
        except SettingsError as error:
            # The file has another name by then.
            lines = (line.removeprefix(f"{temporary}: ") for line in error.args)
            raise SettingsError(*lines) from None
    report(
        f"wrote {file} with {plural(len(pairs), 'source')}:",
        *(f"  {name:<20} {root}" for name, root in pairs),
        f"model: {model}{_understands(model)}",
        *(f"  {line.replace(CHOSEN, 'because ')}" for line in about),
        "Look it over, then run: retrieval index",
    )


def _check_free(file: Path, *, force: bool) -> None:
    """Refuse to replace a settings file, unless it is forced.

    Raises:
        RetrievalError: There is one.
    """
    if file.exists() and not force:
        raise RetrievalError(f"{file} exists already: edit it, or replace it with --force")


def _asked_for() -> tuple[Path, ...]:
    """Ask for the directories of pictures.

    Raises:
        UsageError: There is no terminal to ask on, or no answer.
    """
    from platformdirs import user_pictures_path

    pictures = user_pictures_path()
    here = Path.cwd()
    proposed = here if _has_pictures(here) or not pictures.is_dir() else pictures
    if not sys.stdin.isatty():
        raise click.UsageError(
            "name the directories of your pictures, such as: "
            f"retrieval init {shell_quoted(str(proposed))}"
        )
    tell(f"Directories of your pictures [{shell_quoted(str(proposed))}]: ", end="")
    try:
        answer = input()
        return tuple(map(Path, shlex.split(answer))) or (proposed,)
    except EOFError:
        tell("")
        raise click.Abort from None
    except ValueError as error:
        raise click.UsageError(f"{answer}: {str(error).lower()}") from None


def _has_pictures(directory: Path) -> bool:
    with os.scandir(directory) as entries:
        return any(Path(entry.name).suffix.lower() in PICTURES for entry in entries)


def _holds_here(directory: Path) -> bool:
    """Tell whether a directory is the working directory, or one above it."""
    return Path.cwd().is_relative_to(real_path(directory))


def _chosen() -> tuple[str, list[str]]:
    """Return the model that suits this machine, and lines that say why and what else there is."""
    from retrieval_pipeline.encoders.catalogue import suggest
    from retrieval_pipeline.encoders.checkpoint import hub_answers
    from retrieval_pipeline.encoders.hardware import has_gpu
    from retrieval_pipeline.encoders.on_this_machine import models_here

    choice = suggest(gpu=has_gpu(), cached=models_here(), hub=hub_answers(HUB_SECONDS))
    others = (f'Or "{name}", which {reason}.' for name, reason in choice.others)
    return choice.model, [f"{CHOSEN}{choice.reason}.", *others]


def _understands(model: str) -> str:
    from retrieval_pipeline.encoders.catalogue import languages_of

    languages = languages_of(model)
    return f" (languages: {languages})" if languages else ""


def _check_text(what: str, value: str) -> None:
    """Refuse what a settings file cannot hold.

    Raises:
        RetrievalError: The value is not UTF-8.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RetrievalError(
            f"{to_text(value)}: {what} must be UTF-8 to stand in a settings file: rename it"
        ) from None
