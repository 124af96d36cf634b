"""The floors of the package, what it really imports, and the picture of both.

    python docs/architecture.py        # draws docs/pictures/architecture.svg anew

A test holds the imports against FLOORS, and the picture against the imports.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = Path(__file__).parents[1] / "retrieval_pipeline"
PICTURE = Path(__file__).parent / "pictures" / "architecture.svg"

# From the roof to the ground: a folder, or a module at the top level, and what it is for. Each
# imports only what lies below it. In the picture, floors without arrows between them share a row.
FLOORS = {
    "__main__": "python -m retrieval_pipeline",
    "cli": "the retrieval command",
    "definitions": "the Dagster entry",
    "orchestration": "assets, checks, jobs, sensors",
    "web": "pages and JSON API",
    "assistants": "Model Context Protocol",
    "maintenance": "status, verify, repair, gc",
    "pipeline": "all steps in one call, publication",
    "export": "tables and files for other tools",
    "evaluation": "labelled queries, metrics",
    "latent_map": "PCA, clusters, drawing",
    "recommend": "votes, SVM, active learning",
    "search": "queries, ranking, relevance",
    "ingest": "crawl, embed, Ray",
    "rendering": "HTML, contact sheets, terminal",
    "encoders": "CLIP family, offline model",
    "images": "formats, decoding, workers",
    "index": "items, nearest neighbours, builds",
    "facts": "when, where, with what",
    "config": "the settings",
    "storage": "files under home, local or remote",
    "progress": "how far work is",
    "views": "parts of a picture",
    "vectors": "float32, unit length, one space",
    "concurrency": "threads and cores",
    "processes": "children that know little",
    "paths": "file names as text",
    "errors": "what is said when it fails",
}

# Too many to draw: nearly everything imports them.
EVERYWHERE = ("progress", "views", "vectors", "concurrency", "processes", "paths", "errors")

BOX, GAP, ROW = (210, 46), 24, 96


@cache
def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    return {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the module of each import from the package, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}:{node.lineno}: imports are absolute here")
            if node.module == PACKAGE.name:
                yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
            elif node.module and node.module.startswith(f"{PACKAGE.name}."):
                for name in node.names:
                    full = f"{node.module}.{name.name}"
                    yield node.lineno, full if full in modules() else node.module
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith(f"{PACKAGE.name}."):
                    yield node.lineno, name.name


def floor_of(module: str) -> str:
    """Return the folder or top-level module that a module of the package lies in."""
    return module.split(".")[1]


def arrows() -> dict[str, set[str]]:
    """Return which floors each floor imports."""
    found: dict[str, set[str]] = {floor: set() for floor in FLOORS}
    for module, file in modules().items():
        floor = floor_of(module)
        if floor in found:
            found[floor] |= {floor_of(target) for _, target in imports_of(file)} & FLOORS.keys()
    return {floor: below - {floor} for floor, below in found.items()}


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return the path from one box to another; past a row between them it runs beside the boxes."""
    (x0, y0), (x1, y1) = start, end
    if y1 - y0 <= ROW:
        x0, x1, y0 = x0 + BOX[0] / 2, x1 + BOX[0] / 2, y0 + BOX[1]
        middle = (y0 + y1) / 2
        return f"M{x0:g},{y0:g} C{x0:g},{middle:g} {x1:g},{middle:g} {x1:g},{y1 - 3:g}"
    right = x1 > x0
    outside = x1 + BOX[0] + 2 * GAP if right else min(x0, x1) - 2 * GAP
    x0, x1 = (x0 + BOX[0], x1 + BOX[0] + 3) if right else (x0, x1 - 3)
    y0, y1 = y0 + BOX[1] / 2, y1 + BOX[1] / 2
    return f"M{x0:g},{y0:g} C{outside:g},{y0:g} {outside:g},{y1:g} {x1:g},{y1:g}"


def draw() -> str:
    """Return the picture as SVG: an arrow that follows from others is left out."""
    below = {
        floor: found - {*EVERYWHERE} for floor, found in arrows().items() if floor not in EVERYWHERE
    }
    below.pop("__main__")
    reach: dict[str, set[str]] = {}
    for floor in reversed(below):
        reach[floor] = below[floor].union(*(reach[under] for under in below[floor]))
    height = {}
    for floor in reversed(below):
        height[floor] = 1 + max((height[under] for under in below[floor]), default=-1)
    rows = [
        [floor for floor in below if height[floor] == row]
        for row in range(max(height.values()), -1, -1)
    ]
    width = max(len(row) for row in rows) * (BOX[0] + GAP) + GAP
    place = {
        floor: ((width - len(row) * (BOX[0] + GAP) + GAP) / 2 + x * (BOX[0] + GAP), 20 + y * ROW)
        for y, row in enumerate(rows)
        for x, floor in enumerate(row)
    }
    lines = [
        f'<path d="{_curve(place[floor], place[under])}"/>'
        for floor, found in below.items()
        for under in sorted(found - set().union(*(reach[other] for other in found)))
    ]
    boxes = []
    for floor, (x, y) in place.items():
        middle = x + BOX[0] / 2
        boxes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
            f'<text x="{middle:g}" y="{y + 19:g}" class="name">{floor}</text>'
            f'<text x="{middle:g}" y="{y + 36:g}">{escape(FLOORS[floor])}</text>'
        )
    bottom = 20 + len(rows) * ROW
    ground = ", ".join(EVERYWHERE)
    view = f"{-2 * GAP} 0 {width + 4 * GAP:g} {bottom + 30}"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}"
 font-family="system-ui, sans-serif" font-size="12" text-anchor="middle">
<style>
rect {{ fill: #f4f1ea; stroke: #5b5546 }} .ground {{ fill: #e4ded0 }}
.name {{ font-weight: 600; font-size: 14px }}
path {{ fill: none; stroke: #8a8271; marker-end: url(#tip) }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0,0 L8,4 L0,8 z" style="fill:#8a8271;stroke:none;marker-end:none"/>
</marker></defs>
<rect x="{-2 * GAP}" y="0" width="100%" height="100%" style="fill:#fff;stroke:none"/>
{chr(10).join(lines)}
{chr(10).join(boxes)}
<rect class="ground" x="{GAP}" y="{bottom - 20}" width="{width - 2 * GAP:g}" height="34" rx="6"/>
<text x="{width / 2:g}" y="{bottom + 2}">for everyone: {ground}</text>
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
