"""`retrieval init`: write a settings file."""

import os
from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.config import (
    DEFAULT_MODEL,
    find_settings_file,
    load_settings,
    names_for,
    settings_text,
)
from retrieval_pipeline.errors import RetrievalError, SettingsError


@click.command()
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="Encoder to write into the file.  [default: CLIP ViT-L/14@336px]")
@click.option("--home", default="retrieval-home", show_default=True, help="Where tables will live.")
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

    # Not resolved: a link that the user typed is the name that they know.
    roots = [Path(os.path.abspath(path.expanduser())) for path in directories or [Path()]]  # noqa: PTH100
    for root in roots:
        if not root.is_dir():
            raise RetrievalError(f"{root} is not a directory")
    pairs = list(zip(names_for(roots), roots, strict=True))
    with replacing(file.absolute()) as temporary:
        text = settings_text(pairs, model=model or DEFAULT_MODEL, home=home)
        temporary.write_text(text, encoding="utf-8")
        try:
            load_settings(temporary)
        except SettingsError as error:
            raise SettingsError(str(error).replace(str(temporary), str(file))) from None
    click.echo(f"wrote {file} with {len(pairs)} source{'s' * (len(pairs) != 1)}:")
    for name, root in pairs:
        click.echo(f"  {name:<20} {root}")
    click.echo("Look it over, then run: retrieval index")
