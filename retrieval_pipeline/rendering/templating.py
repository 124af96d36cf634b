"""Loads templates, style sheets and scripts of pages, and hashes them for their policies."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from retrieval_pipeline.paths import printable, to_text

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template; values are escaped unless they are marked as safe."""
    return environment("retrieval_pipeline.rendering").get_template(template).render(**values)


def read_texts(*names: str) -> str:
    """Return the named files of the folder `templates`, joined to one text."""
    folder = files("retrieval_pipeline.rendering") / "templates"
    return "\n".join((folder / name).read_text("utf-8") for name in names)


def policy_hash(text: str) -> str:
    """Return the hash that allows an inline script or style in a Content-Security-Policy."""
    return f"sha256-{as_base64(hashlib.sha256(text.encode()).digest())}"


def as_base64(data: bytes) -> str:
    """Return `data` in standard base64, as data URIs hold it."""
    return base64.b64encode(data).decode()


@cache
def environment(package: str) -> "Environment":
    """Return the templates of a package; they escape values, and a missing value is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

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
