"""The commented settings file that `retrieval init` writes."""

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path


def settings_text(
    sources: Sequence[tuple[str, Path]], *, model: str, home: str, about: Sequence[str] = ()
) -> str:
    """Return a commented settings file.

    Args:
        sources: Name and directory of each.
        model: The encoder.
        home: Where tables and indexes go.
        about: Lines on why this model, for a comment.
    """
    tables = "\n".join(
        f"[[sources]]\nname = {_quoted(name)}\npath = {_quoted(str(path))}\n"
        for name, path in sources
    )
    lines = [line for each in about for line in textwrap.wrap(each, 98) or [""]]
    return _TEMPLATE.format(
        home=_quoted(home),
        model=_quoted(model),
        about="".join(f"# {line}\n" for line in lines),
        sources=tables,
    )


def _quoted(text: str) -> str:
    """Write a TOML basic string; every JSON string is one."""
    return json.dumps(text, ensure_ascii=False)


_TEMPLATE = """\
# Settings of `retrieval`. Relative paths are relative to this file.

# Where tables, index and map live; may be a URL, such as "s3://bucket/prefix". Nothing is ever
# written into the sources.
home = {home}

# "offline" (small, needs no download, knows English only), a model of the Hugging Face hub such as
# "google/siglip2-base-patch16-224", "clip" (the original's, openai/clip-vit-large-patch14-336), or
# the directory of a checkpoint. `retrieval models` compares them.
{about}model = {model}

# "auto" takes a GPU if there is one; or "cpu", "cuda", "cuda:1", "mps".
device = "auto"

# Processes that decode images; default: one for each core. More help if the files come slowly.
# workers = 8

# A table [ray] embeds on Ray, with the extra "ray"; its keys and their defaults:
#   address = "local"      or "auto", "host:6379"
#   decoders = 4           at most so many actors decode, each on one processor
#   encoders = 1           at most so many actors hold the model
#   num_gpus = 0           GPUs for each encoder

# A table [evaluation] keeps a new model from taking over if it answers labelled queries worse, and
# Dagster counts how well each index answers them (docs/quality.md); its keys and their defaults:
#   file = "queries.toml"  or folders = true: each folder's name asks for its pictures
#   metric = "nDCG@10"     or "recall@1", "recall@5", "recall@10", "MRR", "mAP"
#   tolerance = 0.02       how much lower the metric of a new model may be

# A table [labels] marks every picture that one of your words fits (docs/searching.md):
#   words = ["invoice", "screenshot"]
#   compete = false        true: a picture has only the word that fits it best
#   min_relevance = 0.5

# A table [map] lays the map out by neighbours, too, with the extra `umap` (docs/web.md):
#   umap = true

# A table [index] says how well the index must answer (docs/searching.md); engine = "milvus"
# and `uri` in it: Milvus holds the index instead of files under home (docs/scale.md).

# Optional tables: [schedule] and [checks] of Dagster (docs/operations.md), [[saved_queries]].

# One table for each directory to index. The name stays with the images; the path may change.
# A path may be a URL, such as "s3://bucket/prefix". Optional keys of a source, with their defaults:
#   extensions = [".jpg", ".png", ...]            default: all known ones (docs/formats.md)
#   more_extensions = [".jpeg_large"]             beside those; default none
#   sniff = false                                 true: other names too, by their first bytes
#   group = true                                  one hit for RAW and JPEG, original and edited copy
#   exclude = ["*/thumbnails/*", "*.tmp.jpg"]     globs on the path or the name; default none
#   follow_symlinks = false
#   watch = true                                  Dagster looks for changes all the time
#   views = "whole"    crops of long pictures, such as panoramas and screenshots, are searched too;
#                      "tiles": small things in all pictures as well; "centre": the middle only
{sources}"""


def names_for(directories: Sequence[Path]) -> list[str]:
    """Return a source name for each directory, made from its name; all are distinct."""
    names: list[str] = []
    for directory in directories:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", directory.name).strip("-_")[:56] or "pictures"
        name, number = stem, 2
        while name.lower() in (taken.lower() for taken in names):
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names
