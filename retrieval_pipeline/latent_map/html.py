"""A latent map as one self-contained page: scripts, points and a sample of thumbnails inside.

It needs no network. Thumbnails of the points beyond the sample, and the pictures themselves, come
from the files, on the computer that holds them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.latent_map.clusters import sample
from retrieval_pipeline.latent_map.drawing import Drawing, fact_groups
from retrieval_pipeline.rendering.templating import as_base64, policy_hash, read_texts, render
from retrieval_pipeline.storage.remote import Place, Remote

# Points that a browser on two cores still moves fluently; of more, these stand for all.
POINTS = 100_000
# What draws maps, here and on the page of the server.
MAP_SCRIPTS = ("points.js", "latent_map.js")


def map_html(drawing: Drawing, thumbnails: Mapping[int, Pixels], *, three: bool = False) -> str:
    """Return the page.

    Args:
        drawing: The map.
        thumbnails: By row of the map, in the order of importance.
        three: Show it in three dimensions.
    """
    script = read_texts(*MAP_SCRIPTS, "map.js")
    data = _data(drawing, thumbnails, three)
    return render(
        "map.html.jinja",
        drawing=drawing,
        data=data,
        shown=len(data["names"]),
        style=read_texts("tokens.css", "latent_map.css", "map.css"),
        script=script,
        hash=policy_hash(script),
    )


def _data(drawing: Drawing, thumbnails: Mapping[int, Pixels], three: bool) -> dict[str, Any]:
    """Return what map.js draws; arrays are base64 of little-endian numbers."""
    latent = drawing.latent
    rows = np.union1d(sample(len(latent.numbers), POINTS), np.array(list(thumbnails), np.int64))
    folders: dict[str, int] = {}
    folder_of = []
    names = []
    for row in rows.tolist():
        folder, _, name = drawing.paths[row].rpartition("/")
        folder_of.append(folders.setdefault(folder, len(folders)))
        names.append(name)
    return {
        "axes": drawing.axes,
        "coordinates": [_base64(latent.coordinates[rows, axis], "<f4") for axis in range(3)],
        "cluster": _base64(latent.members[rows], "<u2"),
        "clusters": [{"name": group.name, "colour": group.colour} for group in drawing.clusters],
        "source": _base64(drawing.source_of[rows], "<u2"),
        "sources": [
            {"name": group.name, "colour": group.colour, "uri": _uri(root)}
            for group, root in zip(drawing.source_groups, drawing.roots, strict=True)
        ],
        "facts": {
            kind: {
                "codes": _base64(grouping.group_of[rows], "<u2"),
                "groups": [
                    {"name": group.name, "colour": group.colour} for group in fact_groups(grouping)
                ],
            }
            for kind, grouping in drawing.facts.items()
        },
        "score": None if drawing.scores is None else _base64(drawing.scores[rows], "<f4"),
        "folder": _base64(np.array(folder_of), "<u4"),
        "folders": list(folders),
        "names": names,
        "thumbnailRows": np.searchsorted(rows, list(thumbnails)).tolist(),
        "thumbnails": [as_base64(encoded(pixels)) for pixels in thumbnails.values()],
        "colourBy": drawing.colour_by,
        "three": three,
    }


def _uri(root: Place) -> str:
    return str(root) if isinstance(root, Remote) else root.absolute().as_uri()


def _base64(numbers: npt.NDArray[Any], dtype: str) -> str:
    return as_base64(numbers.astype(dtype).tobytes())
