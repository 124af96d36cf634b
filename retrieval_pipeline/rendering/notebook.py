"""Pictures as a fragment of HTML for notebooks such as Jupyter: thumbnails inside, no script."""

from collections.abc import Sequence
from html import escape
from itertools import islice

from retrieval_pipeline.config.settings import ImageLimits
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded, pictures
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.rendering.html_page import Card
from retrieval_pipeline.rendering.templating import as_base64

# A notebook keeps what it has shown in its file: 24 pictures of 240 pixels are about 200 kB.
MOST_CARDS = 24
THUMBNAIL_PIXELS = 240


def cards_html(cards: Sequence[Card], heading: str = "") -> str:
    """Return a `<div>` with the first MOST_CARDS pictures; of the others it tells the number.

    A picture that cannot be read becomes a line that says why.
    """
    shown = list(islice(cards, MOST_CARDS))
    jobs = [Job(card.path, card.content_id) for card in shown]
    found = pictures(jobs, Fit(THUMBNAIL_PIXELS), Limits.of(ImageLimits()))
    figures = []
    for card, each in zip(shown, found, strict=True):
        name = escape(to_text(card.path.name))
        if isinstance(each, ImageError):
            image = f"<em>{escape(str(each))}</em>"
        else:
            uri = f"data:image/webp;base64,{as_base64(encoded(each.pixels))}"
            image = f'<img src="{uri}" alt="{name}" style="max-width:160px;max-height:120px">'
        about = " ".join(filter(None, (_percent(card.relevance), card.taken, card.about)))
        path = escape(to_text(str(card.path)))
        figures.append(
            f'<figure style="margin:0;width:170px;font-size:11px" title="{path}">{image}'
            f"<figcaption>{name}<br>{escape(about)}</figcaption></figure>"
        )
    more = len(cards) - len(shown)
    tail = f"<p>and {more:,} more</p>" if more else ""
    return (
        f"<div><p>{escape(heading)}</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>{tail}</div>'
    )


def _percent(relevance: float | None) -> str:
    return "" if relevance is None else f"{relevance:.0%}"
