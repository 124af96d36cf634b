"""`retrieval models`: which model to take."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, echo_json, tell
from retrieval_pipeline.config.loading import find_settings_file, load_settings
from retrieval_pipeline.errors import SourceError

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.encoders.catalogue import KnownModel
    from retrieval_pipeline.encoders.on_this_machine import Speed

# Where there are no settings yet, the hours are those of so many pictures.
SOME_PICTURES = 10_000


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def models(as_json: bool, config: Path | None) -> None:
    """Compare the models worth taking: what they find, what they need, how long they take here."""
    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.encoders.catalogue import known_models, read_sources
    from retrieval_pipeline.encoders.on_this_machine import measure_speed, models_here

    there = find_settings_file(config) is not None
    settings = load_settings(config) if there else Settings()
    pictures = _count(settings) or SOME_PICTURES
    speed = measure_speed(settings.device, settings.precision)
    here = models_here()
    if as_json:
        rows = [
            asdict(each) | {"cached": each.name in here, "hours": speed.hours(each, pictures)}
            for each in known_models()
        ]
        contents = {
            "pictures": pictures,
            "device": speed.device,
            "operations_per_second": speed.operations,
            "models": rows,
            "sources": read_sources(),
        }
        echo_json(contents, indent=2)
        return
    echo(*_table(known_models(), here, speed, pictures))
    echo(
        "",
        "COCO, Flickr, XM3600: published text-to-image recall@1 in percent (XM3600: the mean over",
        "36 languages). Blank: no published figure could be read. Sources and licences: --json.",
        f"time: for {pictures:,} pictures, estimated from {speed.operations / 1e9:,.0f} GFLOP/s "
        f"measured now ({speed.device}). Reading",
        "the pictures comes on top; with small models it may take longer.",
    )


def _count(settings: "Settings") -> int:
    """Count the pictures of the sources: at the last crawl, else by a look into the directories."""
    from retrieval_pipeline.ingest.walk import walk
    from retrieval_pipeline.storage.store import Store
    from retrieval_pipeline.storage.tables import read_manifest

    store, count = Store(settings.home), 0
    for source in settings.sources:
        if crawled := read_manifest(store, source.name).num_rows:
            count += crawled
            continue
        try:
            count += sum(1 for _ in walk(source))
        except SourceError as error:
            tell(f"{error}: its pictures are not counted")
    return count


def _table(
    known: Sequence["KnownModel"], here: Sequence[str], speed: "Speed", pictures: int
) -> list[str]:
    heads = ("model", "COCO", "Flickr", "XM3600", "languages", "MB", "here", "time")
    rows = [
        (
            each.name,
            *(
                "" if value is None else f"{value:.1f}"
                for value in (each.coco, each.flickr, each.xm3600)
            ),
            each.languages,
            f"{each.download_mb:,}",
            "yes" if each.name in here else "",
            _duration(speed.hours(each, pictures)),
        )
        for each in known
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    left = {0, 4}
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{max(hours * 60, 0.1):.1f} min"
