"""`retrieval init`: write a settings file."""

import os
from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import report
from retrieval_pipeline.config.loading import find_settings_file, load_settings
from retrieval_pipeline.config.settings import DEFAULT_MODEL
from retrieval_pipeline.config.template import names_for, settings_text
from retrieval_pipeline.errors import RetrievalError, SettingsError
from retrieval_pipeline.paths import to_text


@click.command()
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="Encoder to write into the file.  [default: CLIP ViT-L/14@336px]")
@click.option(
    "--home", default="retrieval-home", show_default=True, help="Directory for tables and indexes."
)
@click.option("--force", is_flag=True, help="Replace a settings file that exists.")
@config_option
def init(
    directories: tuple[Path, ...], model: str | None, home: str, force: bool, config: Path | None
) -> None:
    """Write a settings file for these directories (default: the current one)."""
    file = find_settings_file(config)
    if file.exists() and not force:
        raise RetrievalError(f"{file} exists already: edit it, or replace it with --force")
    from retrieval_pipeline.storage.atomic import replacing

    # Links are not resolved: the user knows the directory by the name that they typed.
    roots = [Path(os.path.abspath(path.expanduser())) for path in directories or [Path()]]  # noqa: PTH100
    for root in roots:
        if not root.is_dir():
            raise RetrievalError(f"{root} is not a directory")
        if roots.count(root) > 1:
            raise RetrievalError(f"{root} is given twice: name each directory once")
        _check_text("the name of a directory", str(root))
    _check_text("--home", home)
    _check_text("--model", model or "")
    pairs = list(zip(names_for(roots), roots, strict=True))
    with replacing(file.absolute()) as temporary:
        text = settings_text(pairs, model=model or DEFAULT_MODEL, home=home)
        temporary.write_text(text, encoding="utf-8")
        try:
            load_settings(temporary)
        except SettingsError as error:
            # The file has another name by then.
            lines = (line.removeprefix(f"{temporary}: ") for line in error.args)
            raise SettingsError(*lines) from None
    report(
        f"wrote {file} with {len(pairs)} source{'s' * (len(pairs) != 1)}:",
        *(f"  {name:<20} {root}" for name, root in pairs),
        "Look it over, then run: retrieval index",
    )


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
