"""From a model's name to a directory with its files, on this machine or fetched from the hub.

Only this module knows the hub; all others read files in the directory that it returns.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_pipeline.errors import EncoderError

CONFIG = "config.json"
IMAGE_CONFIGS = ("processor_config.json", "preprocessor_config.json")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# The files that decide the vectors, besides the weights.
CONFIGURATION = (
    CONFIG,
    *IMAGE_CONFIGS,
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHT_PATTERNS = (WEIGHTS, WEIGHTS_INDEX, "model-*.safetensors")

# The fingerprint of a weights file covers its size and this many blocks spread over it. Hashing all
# of it would take seconds for gigabytes, and training changes every block anyway.
SAMPLED_BLOCKS = 16
BLOCK_BYTES = 65_536

# For a repository that has only pickled weights, such as the default model, the hub's own bot
# offers safetensors in a pull request with this title. transformers reads them from there, too.
CONVERSION_BOT = "SFconvertbot"
CONVERSION_TITLE = "Adding `safetensors` variant of this model"


@dataclass(frozen=True)
class Checkpoint:
    """The files of one model.

    Attributes:
        name: The model, as the settings name it.
        directory: Where its files are.
        revision: Commit on the hub, or fingerprint of a local directory's files.
    """

    name: str
    directory: Path
    revision: str

    @property
    def has_tokenizer(self) -> bool:
        """Whether it has a vocabulary; without one transformers would make an empty tokenizer."""
        return _has_tokenizer(self.directory)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the contents of one of its JSON files, or {} if there is no file of that name.

        Raises:
            EncoderError: The file is not a JSON object.
        """
        path = self.directory / name
        try:
            contents = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from error
        if not isinstance(contents, dict):
            raise EncoderError(f"{path} cannot be read: it does not hold a JSON object")
        return contents


def find_checkpoint(model: str, revision: str | None, *, weights: bool) -> Checkpoint:
    """Find the files of `model`; a hub model is taken from the cache, else downloaded.

    A model that is completely in the cache is used without asking the hub. So it works offline, and
    a new commit on the hub does not change the vector space of an index.

    Args:
        model: A directory or a hub id.
        revision: Of a hub model: branch, tag or commit. Of a directory: the fingerprint that its
            files must still have.
        weights: Whether the weights of a hub model are needed, or only its configuration.

    Raises:
        EncoderError: There is no such model, it cannot be had, or it has no safetensors.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _local_checkpoint(model, path, revision)
    if path.exists() or model.startswith(("/", ".", "~")) or model.count("/") > 1 or "\\" in model:
        raise EncoderError(f'model "{model}" is not a directory: give that of a checkpoint')
    return _hub_checkpoint(model, revision, weights=weights)


def is_cached(model: str) -> bool:
    """Tell whether the files of a hub model are all on this machine."""
    return _cached_snapshot(model, None, weights=True) is not None


def hub_answers(seconds: float) -> bool:
    """Tell whether the hub can be asked for models, within so many seconds.

    Never in huggingface_hub's offline mode (`HF_HUB_OFFLINE=1`).
    """
    from huggingface_hub import constants, errors, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except (
        errors.HTTPError,  # type: ignore[attr-defined]  # as in _hub_errors
        errors.OfflineModeIsEnabled,
        OSError,
    ):
        return False
    return True


def _local_checkpoint(model: str, directory: Path, revision: str | None) -> Checkpoint:
    if not (directory / CONFIG).is_file():
        raise EncoderError(f'model "{model}" is not a checkpoint: it has no {CONFIG}')
    weights = weight_files(directory)
    if not weights:
        raise _no_safetensors(model, sorted(path.name for path in directory.iterdir()))
    try:
        found = _fingerprint(directory, weights)
    except OSError as error:
        raise EncoderError(f'model "{model}" cannot be read: {error}') from error
    if revision not in (None, found):
        raise EncoderError(
            f'model "{model}" has revision {found} now, not {revision}: '
            "bring its former files back, or index again"
        )
    return Checkpoint(model, directory, found)


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a directory; an empty list if any of them is missing."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    try:
        index = json.loads((directory / WEIGHTS_INDEX).read_bytes())
        paths = [directory / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return paths if all(path.is_file() for path in paths) else []


def _fingerprint(directory: Path, weights: list[Path]) -> str:
    """Hash all bytes of the configuration files, and size and sampled blocks of the weights."""
    digest = hashlib.sha256()
    for name in CONFIGURATION:
        path = directory / name
        if path.is_file():
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for block in range(SAMPLED_BLOCKS):
                file.seek(max(size - BLOCK_BYTES, 0) * block // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


def _hub_checkpoint(model: str, revision: str | None, *, weights: bool) -> Checkpoint:
    with _hub_errors(model, revision):
        directory = _cached_snapshot(model, revision, weights=weights)
        directory = directory or _downloaded_snapshot(model, revision, weights=weights)
    return Checkpoint(model, directory, directory.name)


def _cached_snapshot(model: str, revision: str | None, *, weights: bool) -> Path | None:
    """Return the directory of a complete snapshot in the hub's cache, named by its commit.

    Without a revision, only a snapshot with weights is accepted: until they were downloaded once,
    it is not known here whether they are on the main branch or in the bot's pull request.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    if revision is None:
        conversions = sorted((cached / "refs" / "refs" / "pr").glob("*"))
        references = [cached / "refs" / "main", *conversions]
    else:
        references = [cached / "refs" / revision]
    commits = [path.read_text().strip() for path in references if path.is_file()]
    if revision is not None and not commits:
        commits = [revision]
    for commit in commits:
        snapshot = cached / "snapshots" / commit
        if _is_complete(snapshot, weights=weights or revision is None):
            return snapshot
    return None


def _is_complete(snapshot: Path, *, weights: bool) -> bool:
    return (
        (snapshot / CONFIG).is_file()
        and any((snapshot / name).is_file() for name in IMAGE_CONFIGS)
        and _has_tokenizer(snapshot)
        and (not weights or bool(weight_files(snapshot)))
    )


def _downloaded_snapshot(model: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    def files_of(reference: str) -> list[str]:
        siblings = HfApi().model_info(model, revision=reference).siblings
        return [file.rfilename for file in siblings or ()]

    reference = revision or "main"
    files = files_of(reference)
    if not _has_safetensors(files) and revision is None:
        reference = _conversion_reference(model) or reference
        files = files_of(reference)
    if CONFIG not in files:
        raise EncoderError(f'model "{model}" is not a checkpoint: it has no {CONFIG}')
    if not _has_safetensors(files):
        raise _no_safetensors(model, files)
    wanted = [*CONFIGURATION, *(WEIGHT_PATTERNS if weights else ())]
    return Path(
        snapshot_download(model, revision=reference, allow_patterns=wanted, ignore_patterns=["*/*"])
    )


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in TOKENIZERS)


def _has_safetensors(files: list[str]) -> bool:
    return WEIGHTS in files or WEIGHTS_INDEX in files


def _conversion_reference(model: str) -> str | None:
    from huggingface_hub import get_repo_discussions

    for request in get_repo_discussions(
        model, author=CONVERSION_BOT, discussion_type="pull_request", discussion_status="open"
    ):
        if request.title == CONVERSION_TITLE and request.author == CONVERSION_BOT:
            return f"refs/pr/{request.num}"
    return None


def _no_safetensors(model: str, files: list[str]) -> EncoderError:
    pickled = next((name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt"))), "")
    found = f", only {pickled}, which could run code" if pickled else ""
    return EncoderError(
        f'model "{model}" has no {WEIGHTS}{found}: take another model, or convert its weights '
        "(https://huggingface.co/docs/safetensors/convert-weights)"
    )


@contextmanager
def _hub_errors(model: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the hub's client into an EncoderError of one line that says what to do."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError as error:
        raise EncoderError(
            f'model "{model}" is neither a directory nor a hub id such as '
            '"openai/clip-vit-base-patch32"'
        ) from error
    except errors.GatedRepoError as error:
        raise EncoderError(
            f'model "{model}" is gated: accept its terms at {constants.ENDPOINT}/{model}, '
            "then log in with: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EncoderError(
            f'model "{model}" is neither a directory nor a model of the hub '
            "(for a private one log in with: hf auth login)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise EncoderError(f'model "{model}" has no revision "{revision}" on the hub') from error
    except (
        errors.HTTPError,  # type: ignore[attr-defined]  # of httpx or httpx2, as the hub's version
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        errors.FileMetadataError,
        errors.XetDownloadError,
    ) as error:
        raise EncoderError(
            f'model "{model}" is not in the cache ({constants.HF_HUB_CACHE}) and the hub cannot be '
            f"reached ({type(error).__name__}): give the directory of a checkpoint as the model, "
            'set HF_HOME to a cache that holds it, or use model = "offline"'
        ) from error
    except OSError as error:
        raise EncoderError(
            f'model "{model}" cannot be stored in {constants.HF_HUB_CACHE}: {error}'
        ) from error
