"""A team's Dagster project with a library of pictures between two assets of its own."""

from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
from PIL import Image

from retrieval_pipeline import LibraryResource, RetrievalLibrary

HERE = Path(__file__).parent


@dg.asset
def download() -> None:
    """Fill the directory; here with pictures of one colour each."""
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for width, colour in enumerate(("red", "green", "blue"), 40):
        Image.new("RGB", (width, 40), colour).save(folder / f"{colour}.png")


pictures = RetrievalLibrary(
    config_file=HERE / "retrieval.toml",
    key_prefix=["pictures"],
    owners=["team:search"],
    upstream=[download.key],
)


@dg.asset(
    deps=[pictures.key("retrieval_index")], automation_condition=dg.AutomationCondition.eager()
)
def widest(library: LibraryResource) -> dg.MaterializeResult[None]:
    """The width of the widest picture, read from the table of the embeddings."""
    table = library.embeddings("pictures")
    return dg.MaterializeResult(metadata={"pixels": pc.max(table["width"]).as_py()})


defs = dg.Definitions.merge(pictures.definitions(), dg.Definitions(assets=[download, widest]))
