"""Templates, style sheets and scripts of the pages, and the hashes that their policies name."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retrieval_pipeline.paths import printable, to_text


def render(template: str, **values: Any) -> str:
    """Return a page; every value that is not marked as safe is escaped."""
    return environment("retrieval_pipeline.rendering").get_template(template).render(**values)


def read_texts(*names: str) -> str:
    """Return the files of the folder `templates` as one text."""
    folder = files("retrieval_pipeline.rendering") / "templates"
    return "\n".join((folder / name).read_text("utf-8") for name in names)


def policy_hash(text: str) -> str:
    """Return what a Content-Security-Policy calls an inline script or style sheet."""
    return f"sha256-{as_base64(hashlib.sha256(text.encode()).digest())}"


def as_base64(data: bytes) -> str:
    """Return base64 as data URIs hold it."""
    return base64.b64encode(data).decode()


@cache
def environment(package: str) -> Environment:
    """Return what loads the templates of a package: they escape all values, and may miss none."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["path_text"] = lambda path: printable(to_text(str(path)))
    return environment
