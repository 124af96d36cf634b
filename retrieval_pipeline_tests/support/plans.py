"""Have small builds searched as large ones are."""

from pathlib import Path

from retrieval_pipeline.index.ann import Trees, write_trees
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.progress import Quiet


def search_by_trees(build: Build, plan: Plan, directory: Path) -> None:
    """Grow trees over the full vectors of a build's segments, and search all of it by `plan`."""
    for number, part in enumerate(build.vector_index.parts):
        file = directory / f"{number}.annoy"
        write_trees(file, part.index.matrices, Quiet())
        part.index.trees = Trees.open(file, build.info.dim)
        part.plan = plan


def segments_of(build: Build) -> list[Path]:
    """Return the directories of the segments of a build."""
    return [build.path.parent / "segments" / segment.name for segment in build.info.segments]


def blocks_of(build: Build) -> list[Path]:
    """Return the files that a build shares with those beside it."""
    return [build.path.parent / "blocks" / name for name in build.info.shared_files]
