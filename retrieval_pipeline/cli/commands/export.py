"""`retrieval export`: all that is known of pictures, as files that other tools open."""

from pathlib import Path
from typing import Any

import click

from retrieval_pipeline.cli.commands.common import (
    Sectioned,
    album_options,
    check_page,
    config_option,
    fact_options,
    path_option,
    source_option,
)
from retrieval_pipeline.cli.output import plural, tell
from retrieval_pipeline.cli.parameters import Count, FilePath, Fraction
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.paths import real_path

# How a name ends -> what is written; other names are directories.
KINDS = {".parquet": "parquet", ".lance": "lance", ".tar": "webdataset"}


@click.command(
    cls=Sectioned,
    headings={
        "kind": "What to write",
        "sources": "Which pictures",
        "config": "Other options",
    },
)
@click.argument("out", type=FilePath())
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["parquet", "lance", "numpy", "webdataset", "xmp"]),
    help="What to write. Default: by the end of OUT, .parquet, .lance or .tar (webdataset).",
)
@click.option("-k", "-n", "most", type=Count(1), help="Only so many, the best ones.")
@click.option("--no-vectors", is_flag=True, help="Leave the vectors out.")
@click.option(
    "--size",
    default=512,
    show_default=True,
    type=click.IntRange(16, 16_384),
    help="With webdataset: the largest width and height of a picture, in pixels.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file OUT, if there is one.")
@source_option
@path_option
@fact_options
@album_options
@click.option(
    "--format", "formats", multiple=True, metavar="NAME", help="Only this format, such as png."
)
@click.option("--min-relevance", type=Fraction(), help="Default with TEXT: 0.5, or 0 with -n.")
@config_option
def export(
    out: Path,
    words: tuple[str, ...],
    kind: str | None,
    most: int | None,
    no_vectors: bool,
    size: int,
    overwrite: bool,
    min_relevance: float | None,
    config: Path | None,
    **asked: Any,
) -> None:
    """Write what is known of all pictures, or of the hits of TEXT and filters, to OUT.

    A row has the path, content id, facts, place on the map, labels, votes, albums and vector of a
    picture: Parquet, which pandas, polars, DuckDB, Embedding Atlas and others open as it is.

    \b
    retrieval export all.parquet
    retrieval export dogs.parquet a dog on the beach --on 2019 -n 500
    retrieval export for-numpy --as numpy        vectors.npy and pictures.csv
    retrieval export train.tar --label invoice   WebDataset, pictures of at most 512 pixels
    retrieval export sidecars --as xmp           labels as XMP files, in a tree of their own
    """
    kind = kind or KINDS.get(out.suffix.lower())
    if kind is None:
        raise click.UsageError(
            "name OUT *.parquet, *.lance or *.tar, or say what to write with --as"
        )
    settings = load_settings(config)
    from retrieval_pipeline.cli.hit_files import check_directory

    if kind in ("lance", "numpy", "xmp"):
        check_directory(out, settings)
        check_page(out / "probe" if out.is_dir() else out)
    else:
        check_directory(out.absolute().parent, settings)
        check_page(out)
        if out.exists() and not overwrite:
            raise StoreError(f"{out} exists: name another file, or add --overwrite")
    from retrieval_pipeline.cli.progress import console_progress
    from retrieval_pipeline.export import files
    from retrieval_pipeline.export.table import PictureRows, select
    from retrieval_pipeline.images.errors import Limits
    from retrieval_pipeline.search.query import Query
    from retrieval_pipeline.search.searcher import Searcher

    searcher = Searcher.open(settings)
    text = " ".join(words) if words else None
    query = Query.of({**asked, "text": text, "min_relevance": min_relevance or 0.0})
    rows = PictureRows(searcher, select(searcher, query, most), vectors=not no_vectors)
    count = len(rows)
    # A link stays one.
    file = real_path(out)
    with console_progress() as progress:
        if kind == "parquet":
            files.write_parquet(rows, file, progress)
        elif kind == "lance":
            files.write_lance(rows, out, progress)
        elif kind == "numpy":
            files.write_numpy(rows, out, progress)
        elif kind == "xmp":
            count = files.write_xmp(rows, out, progress)
            if not count:
                tell("none of them has a label: `retrieval label WORDS` gives them labels")
        else:
            limits = Limits.of(settings.images)
            left_out = files.write_webdataset(rows, file, progress, size=size, limits=limits)
            tell(*(f"left out: {line}" for line in left_out))
            count -= len(left_out)
    tell(f"{plural(count, 'picture')} in {out}")
