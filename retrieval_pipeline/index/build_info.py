"""build.json: what a build is, where its parts are, and what it was checked for."""

from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import ValidationError
from pydantic_core import from_json

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.ann import METRIC
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.blocks import Block, BlockFile, files_of
from retrieval_pipeline.index.hashed_files import FileFacts
from retrieval_pipeline.index.score_statistics import Background
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import VectorSpace

# Raised when files of a build change their meaning: builds of a later format are not opened.
BUILD_FORMAT = 5
# The format without segments, which `former_build` opens.
FORMER_FORMAT = 4

INFO_FILE = "build.json"
# Where the rows of the segments are in the build (see `runs`).
RUNS_FILE = "runs.npy"


class Check(StoredModel):
    """A check that a build went through before it was published.

    Attributes:
        name: Of the check, in snake_case.
        passed: Whether the build may be published as far as this check goes.
        found: What was found, as part of a sentence.
    """

    name: str
    passed: bool
    found: str


class SegmentEntry(StoredModel):
    """A segment of a build.

    Attributes:
        name: Of its directory.
        rows: How many rows it has, those that have gone included.
        alive: How many of them are rows of the build.
        bytes: Size of its files.
        is_new: Whether the build before this one lacked it.
        recall_at_10: What its plan finds.
    """

    name: str
    rows: int
    alive: int
    bytes: int
    is_new: bool
    recall_at_10: float


class BuildInfo(StoredModel):
    """The contents of build.json.

    Attributes:
        format: BUILD_FORMAT of the program that wrote it.
        created_at: When the build was begun, in UTC.
        inputs: Hash of the items and of every setting that the build was made with.
        model: With `revision`, `dim` and `preprocessing`, the vector space (see VectorSpace).
        metric: Annoy's name of the similarity.
        items: How many images there are, copies counted once.
        views: How many further views of the images there are.
        locations: How many files hold them.
        sources: How many of these files each source has.
        segments: Where its vectors are.
        blocks: Where all else that it tells of its items is.
        calibration: How its largest segment is searched, and what all of them together find.
        background: How unrelated texts and pictures score.
        vocabulary: Hash of the words whose vectors the build has; None if it has none.
        vocabulary_vectors: Where these vectors are, beside the blocks.
        build_seconds: How long writing it took, without the checks.
        files: What each other file in the directory of the build must be, by file name.
        checks: The checks that it passed before it was published.
    """

    format: int
    created_at: datetime
    inputs: str
    model: str
    revision: str
    dim: int
    preprocessing: str
    metric: str
    items: int
    views: int = 0
    locations: int
    sources: dict[str, int]
    segments: tuple[SegmentEntry, ...] = ()
    blocks: tuple[Block, ...] = ()
    calibration: Calibration
    background: Background
    vocabulary: str | None
    vocabulary_vectors: BlockFile | None = None
    build_seconds: float
    files: dict[str, FileFacts]
    checks: tuple[Check, ...] = ()

    @property
    def space(self) -> VectorSpace:
        """The vector space of the build; queries must be encoded in the same one."""
        return VectorSpace(self.model, self.revision, self.dim, self.preprocessing)

    @property
    def recall_at_10(self) -> float:
        """Share of a query's true ten nearest items that are found, measured at the build."""
        return self.calibration.recall_at_10

    @property
    def shared_files(self) -> dict[str, FileFacts]:
        """What each file beside the blocks must be, by file name."""
        more = [] if self.vocabulary_vectors is None else [self.vocabulary_vectors]
        return files_of(self.blocks) | {file.name: file.facts for file in more}

    @property
    def bytes(self) -> int:
        """Size of all files, those that other builds share included."""
        files = (*self.files.values(), *self.shared_files.values())
        segments = sum(segment.bytes for segment in self.segments)
        return segments + sum(file.size for file in files)


class OtherVersionError(BuildError):
    """A build was written by another version of this program; its files may be sound."""


def vocabulary_digest() -> str:
    """Return the hash of the present vocabulary, to compare with that of a build."""
    return blake3("\n".join(words()).encode()).hexdigest(length=16)


def write_info(directory: Path, info: BuildInfo) -> None:
    """Write build.json into the directory of a build that is not yet published."""
    (directory / INFO_FILE).write_text(info.model_dump_json(indent=2), encoding="utf-8")


def read_info(build: Path) -> BuildInfo:
    """Read the build.json of a build's directory.

    Raises:
        BuildError: The file is missing or damaged.
        OtherVersionError: Another version of this program wrote it, and this one cannot read it.
    """
    try:
        with reading(build / INFO_FILE):
            data = (build / INFO_FILE).read_bytes()
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    try:
        found = from_json(data)
        kind = found.get("format"), found.get("metric")
        if kind == (FORMER_FORMAT, METRIC):
            return BuildInfo.model_validate(_without_trees(found))
        if kind != (BUILD_FORMAT, METRIC):
            raise OtherVersionError(f"{build}: made by another version: run `retrieval index`")
        info = BuildInfo.model_validate(found)
    except (ValueError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        raise BuildError(f"{build / INFO_FILE}: damaged ({what}): run `retrieval index`") from None
    names = [segment.name for segment in info.segments]
    if len(set(names)) < len(names) or not names:
        raise BuildError(
            f"{build / INFO_FILE}: damaged (no segments, or one listed twice): "
            "run `retrieval index`"
        )
    return info


def _without_trees(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in found if name not in ("trees", "tree_components")}
