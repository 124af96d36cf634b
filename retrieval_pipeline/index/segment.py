"""A segment: an immutable directory of vectors and of what speeds up the search in them.

Its name is a hash of which rows it has, in which vector space, and of every setting that matters:
after a run that was killed, the next finds what that one had finished. Which rows of a build its
rows are is the build's to say (`runs`).
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from blake3 import blake3
from pydantic import ValidationError
from pydantic_core import from_json

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index.ann import METRIC, TREE_COUNT, TREE_SEED, TreeFacts
from retrieval_pipeline.index.arrays import load_array, map_array
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.knn import VectorIndex
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.quantization import WantCodes, writes_codes
from retrieval_pipeline.index.reduction import REDUCED_DIMENSIONS
from retrieval_pipeline.index.row_keys import RowKeys
from retrieval_pipeline.index.search_structures import (
    FEW_ROWS,
    REDUCED_FILE,
    TREES_FILE,
    mismatch,
    open_vector_index,
    write_structures,
)
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.atomic import new_directory
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import Vectors, VectorSpace

# Raised when files of a segment change their meaning: segments of another format are not opened.
SEGMENT_FORMAT = 1

# Names of the files in a segment's directory; `search_structures` names the others.
SEGMENT_FILE = "segment.json"
VECTORS_FILE = "vectors.npy"
KEYS_FILE = "keys.npy"

# The file that a plan of each kind needs. Without codes, a scan of the reduced vectors serves.
_NEEDED = {"trees": TREES_FILE, "projected": REDUCED_FILE, "codes": REDUCED_FILE}

# What vectors are stored as.
Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class SegmentSettings:
    """What segments are made with, besides their rows.

    Attributes:
        space: The vector space.
        precision: What the vectors are stored as.
        recall: The recall at 10 that the plan must reach when it is measured.
        codes: Whether to write codes, and to try them. Where faiss is missing, "auto" makes a
            segment without them under the same name: two machines that share a home may differ.
        vocabulary: Hash of the words that the plan is measured with; None without words.
    """

    space: VectorSpace
    precision: Precision
    recall: float
    codes: WantCodes
    vocabulary: str | None

    def digest(self, rows: int) -> str:
        """Return a hash of what matters for a segment of so many rows."""
        structures = (TREE_COUNT, TREE_SEED, REDUCED_DIMENSIONS, self.recall, self.codes)
        # Few rows are scanned: nothing but their vectors is stored.
        more = () if rows <= FEW_ROWS else (*structures, self.vocabulary)
        constants = (SEGMENT_FORMAT, METRIC, self.space.key, self.precision, *more)
        return blake3(json.dumps(constants).encode()).hexdigest(length=DIGEST_BYTES)

    def name(self, keys: RowKeys) -> str:
        """Return the name of the segment with these rows."""
        return name_of(self.digest(len(keys)), keys)


def name_of(settings: str, keys: RowKeys) -> str:
    """Return the name of the segment with these rows, made with settings of this digest."""
    digest = blake3(settings.encode())
    digest.update(keys.tobytes())
    return digest.hexdigest(length=DIGEST_BYTES)


class SegmentInfo(StoredModel):
    """The contents of segment.json.

    Attributes:
        format: SEGMENT_FORMAT of the program that wrote it.
        space: Key of the vector space.
        settings: What `SegmentSettings.digest` returned.
        rows: Number of rows.
        dim: Number of components of the vectors.
        precision: What the vectors are stored as.
        trees: What the Annoy file holds; None if there is none.
        tree_components: Number of components of the vectors in the trees.
        calibration: How the segment is searched, and what that finds.
        files: What each other file must be, by file name.
    """

    format: int
    space: str
    settings: str
    rows: int
    dim: int
    precision: Precision
    trees: TreeFacts | None
    tree_components: int
    calibration: Calibration
    files: dict[str, FileFacts]

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class Segment:
    """An open segment: its files are mapped into memory.

    Attributes:
        path: Its directory.
        info: The contents of its segment.json.
        vector_index: Its vectors and the structures that speed up the search in them.
    """

    path: Path
    info: SegmentInfo
    vector_index: VectorIndex

    def __len__(self) -> int:
        return self.info.rows

    @property
    def name(self) -> str:
        """The hash that names it."""
        return self.path.name

    @cached_property
    def keys(self) -> RowKeys:
        """What identifies its rows.

        Raises:
            BuildError: The file does not hold them.
        """
        shape = (len(self), DIGEST_BYTES)
        return load_array(self.path / KEYS_FILE, np.uint8, shape)


def read_segment_info(path: Path, space_key: str) -> SegmentInfo:
    """Read the segment.json of a segment's directory.

    Raises:
        BuildError: It is missing, damaged, of another version or of another vector space.
        UnreadableError: It cannot be read.
    """
    file = path / SEGMENT_FILE
    try:
        with reading(file):
            data = file.read_bytes()
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}: run `retrieval index`") from None
    try:
        found = from_json(data)
        if (version := found.get("format")) != SEGMENT_FORMAT:
            raise BuildError(
                f"{path}: made by another version (format {version}): run `retrieval index`"
            )
        info = SegmentInfo.model_validate(found)
    except (ValueError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        raise BuildError(f"{file}: damaged ({what}): run `retrieval index`") from None
    if info.space != space_key:
        raise BuildError(
            f"{path}: of another model ({info.space}): remove it and run `retrieval index`"
        )
    if missing := {VECTORS_FILE, KEYS_FILE} - set(info.files):
        raise BuildError(f"{file}: does not name {min(missing)}: run `retrieval index`")
    return info


def open_segment(path: Path, space_key: str, *, rehash: bool = False) -> Segment:
    """Check every file of a segment, then map the files into memory.

    Raises:
        BuildError: The segment is missing, damaged, of another version or of another vector space.
        UnreadableError: A file cannot be read, which says nothing about its content.
    """
    info = read_segment_info(path, space_key)
    if check_files(path, info.files, rehash=rehash):
        # On a read-only disk every reader has to hash again.
        with contextlib.suppress(StoreError):
            remember_hashed(path, info.files)
    dtype = np.float16 if info.precision == "float16" else np.float32
    try:
        with reading(path):
            matrix = map_array(path / VECTORS_FILE, dtype, (info.rows, info.dim))
            index = open_vector_index(path, matrix, info.trees, info.tree_components, info.files)
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}: run `retrieval index`") from None
    needed = _NEEDED.get(info.calibration.plan.kind)
    if needed is not None and needed not in info.files:
        raise mismatch(path / SEGMENT_FILE)
    return Segment(path, info, index)


def write_segment(
    path: Path,
    settings: SegmentSettings,
    keys: RowKeys,
    read_vectors: Callable[[], Matrix],
    basis: Vectors | None,
    texts: Vectors | None,
    progress: Progress,
    *,
    anew: bool = False,
) -> bool:
    """Write a segment, unless a sound one is there already.

    Args:
        path: Its directory, called as `settings.name(keys)` says.
        settings: What to make it with.
        keys: What identifies its rows, in their order.
        read_vectors: Returns their vectors, in the precision of the settings (n, dim).
        basis: Of another segment, which serves if it loses little; None for one of its own.
        texts: Vectors of the vocabulary, float32 (n, dim); None if they are not known.
        progress: Told about stages.
        anew: Write it even if there is a sound one.

    Returns:
        Whether it was written.

    Raises:
        StoreError: The file system refused; there is no such segment, or the one before it.
    """
    if not anew:
        with contextlib.suppress(BuildError):
            open_segment(path, settings.space.key)
            return False
    with new_directory(path, replaces=True) as directory:
        np.save(directory / KEYS_FILE, keys)
        _write_vectors(directory / VECTORS_FILE, read_vectors())
        matrix = map_array(
            directory / VECTORS_FILE,
            np.float16 if settings.precision == "float16" else np.float32,
            (len(keys), settings.space.dim),
        )
        with_codes = writes_codes(settings.codes, len(keys))
        structures = write_structures(
            directory, matrix, basis, texts, settings.recall, with_codes, progress
        )
        files = {file.name: FileFacts.of(file) for file in sorted(directory.iterdir())}
        info = SegmentInfo(
            format=SEGMENT_FORMAT,
            space=settings.space.key,
            settings=settings.digest(len(keys)),
            rows=len(keys),
            dim=settings.space.dim,
            precision=settings.precision,
            trees=structures.trees,
            tree_components=structures.tree_dimensions,
            calibration=structures.calibration,
            files=files,
        )
        remember_hashed(directory, files)
        (directory / SEGMENT_FILE).write_text(info.model_dump_json(indent=2), encoding="utf-8")
    return True


def _write_vectors(file: Path, vectors: Matrix) -> None:
    # A function of its own, so that the vectors leave the memory before the trees grow.
    np.save(file, vectors)
