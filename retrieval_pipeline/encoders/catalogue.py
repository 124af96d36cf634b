"""The models worth taking: what is published about each, and which of them suits this machine.

The table is `models.toml`; docs/models.md is written from it:

    python -m retrieval_pipeline.encoders.catalogue > docs/models.md
"""

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from retrieval_pipeline.encoders.load import OFFLINE

TABLE = "models.toml"

BEST = "google/siglip2-so400m-patch14-384"
BALANCED = "google/siglip2-base-patch16-224"
FAST = "openai/clip-vit-base-patch32"

HEAD = """\
# Which model

`google/siglip2-base-patch16-224` is the one to take on a processor: it finds the right picture
first for 52 % of COCO's captions where the original's CLIP finds it for 37 %, with a tenth of the
arithmetic, and understands 109 languages. With a GPU take `google/siglip2-so400m-patch14-384`;
without a way to a model hub, `offline`.

`retrieval models` shows this table with what is in the cache and what each would take on this
machine; `retrieval init` writes the model that suits it. Any other checkpoint of these families
works as well, by its name on the hub or its directory.

COCO, Flickr30k and XM3600 are published text-to-image recalls in percent: for how many captions
the first picture is the right one. XM3600 is the mean over 36 languages. A blank means that no
published figure could be read, not that there is none. MB are those of float32 weights.
"""


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model without having it.

    Attributes:
        name: As the settings name it.
        title: What people call it.
        languages: In which it understands queries.
        download_mb: Megabytes of its weights in float32.
        licence: Of the weights.
        dim: Components of a vector.
        edge: Width and height of its input, in pixels.
        gflop: Billions of arithmetic operations for one picture.
        note: What else helps to choose; may be empty.
        sources: Where the figures are from; keys of `read_sources`, or a source itself.
        coco: Text-to-image recall@1 on MS COCO, in percent; None if none is published.
        flickr: The same on Flickr30k.
        xm3600: The same on Crossmodal-3600, the mean over 36 languages.
    """

    name: str
    title: str
    languages: str
    download_mb: int
    licence: str
    dim: int
    edge: int
    gflop: float
    note: str
    sources: Sequence[str]
    coco: float | None = None
    flickr: float | None = None
    xm3600: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """A model for this machine.

    Attributes:
        model: Its name.
        reason: Why, as half a sentence.
        others: Two more models, each with a reason.
    """

    model: str
    reason: str
    others: Sequence[tuple[str, str]]


@cache
def known_models() -> tuple[KnownModel, ...]:
    """Return the table."""
    return tuple(KnownModel(**row) for row in _table()["model"])


def read_sources() -> dict[str, str]:
    """Return what the short names of sources stand for."""
    return dict(_table()["sources"])


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))


def languages_of(model: str) -> str | None:
    """Return in which languages a model understands queries; None if the table does not say."""
    return next((each.languages for each in known_models() if each.name == model), None)


def suggest(*, gpu: bool, cached: Sequence[str], hub: bool) -> Suggestion:
    """Choose a model.

    Args:
        gpu: Whether there is a GPU.
        cached: Names of the known models that are on this machine.
        hub: Whether a model hub can be reached.
    """
    reasons = {
        BEST: "finds the most of all, in 109 languages; wants a GPU",
        BALANCED: "finds much for its arithmetic, in 109 languages",
        FAST: "is four times as fast, finds less, knows English",
        OFFLINE: "needs no download, but knows English only and 1,000 kinds of things",
    }
    if gpu and (hub or BEST in cached):
        first, why = BEST, "there is a GPU here"
        others = [BALANCED, FAST]
    elif hub or BALANCED in cached:
        first, why = BALANCED, "there is no GPU here"
        others = [FAST, OFFLINE]
    else:
        local = [each.name for each in known_models() if each.name in cached]
        first = max(local, key=_recall, default=OFFLINE)
        why = "no model hub can be reached from here"
        if first != OFFLINE:
            why += ", and this one is in the cache"
        others = [name for name in (BALANCED, OFFLINE, BEST) if name != first][:2]
    reason = f"{why}, and {first} {reasons[first]}" if first in reasons else why
    return Suggestion(first, reason, [(name, reasons[name]) for name in others])


def _recall(name: str) -> float:
    return next(each.coco or 0.0 for each in known_models() if each.name == name)


def document() -> str:
    """Return docs/models.md."""
    lines = [
        HEAD,
        "| model | COCO | Flickr30k | XM3600 | languages | MB | licence | dimensions | pixels "
        "| GFLOP a picture |",
        "|---|--:|--:|--:|---|--:|---|--:|--:|--:|",
    ]
    for each in known_models():
        recalls = " | ".join(
            "" if value is None else f"{value:.1f}"
            for value in (each.coco, each.flickr, each.xm3600)
        )
        lines.append(
            f"| {each.title}<br>`{each.name}` | {recalls} | {each.languages} "
            f"| {each.download_mb:,} | {each.licence} | {each.dim} | {each.edge} | {each.gflop:g} |"
        )
    lines += ["", "## Notes and sources", ""]
    for each in known_models():
        said = " ".join(filter(None, [each.note, _sources_line(each)]))
        lines.append(f"- {each.title}: {said}")
    lines += ["", *(f"- {short}: {long}" for short, long in read_sources().items()), ""]
    return "\n".join(lines)


def _sources_line(model: KnownModel) -> str:
    return f"Figures: {'; '.join(model.sources)}." if model.sources else ""


if __name__ == "__main__":
    sys.stdout.write(document())
