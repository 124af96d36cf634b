import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from retrieval_pipeline.encoders.clip import TEXT_BATCH
from retrieval_pipeline.encoders.hardware import pick_dtype
from retrieval_pipeline.encoders.load import describe, load_encoder, load_text_encoder_of
from retrieval_pipeline.encoders.preprocessing import BOUNDED_EDGE
from retrieval_pipeline.errors import EncoderError
from synthetic.checkpoints import (
    make_aimv2,
    make_align,
    make_altclip,
    make_bert,
    make_chinese_clip,
    make_clip,
    make_metaclip2,
    make_published_naflex,
    make_published_siglip,
    make_published_siglip2,
    make_siglip,
)

Array = npt.NDArray[np.float32]

TEXTS = ["a dog", "A Cat!", "一只狗", "x"]

# Google's SigLIP were trained with 64 tokens; the processors of the others say what they pad to.
SIXTY_FOUR = {"padding": "max_length", "max_length": 64}
# For models whose images transformers prepares itself: so large that bounding their size leaves
# them as they are.
LARGE = BOUNDED_EDGE


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(clip: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(clip, tmp_path / "copy"))


def pictures(edge: int = 40) -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = ((edge, edge + 30, 3), (edge, edge, 3), (5 * edge, edge, 3))
    return [Image.fromarray(random.integers(0, 256, shape, np.uint8)) for shape in shapes]


def image_vectors(directory: Path, images: list[Image.Image]) -> Array:
    """What transformers makes of images when it is called directly."""
    model = transformers.AutoModel.from_pretrained(directory)
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    with torch.no_grad():
        return unit(model.get_image_features(**processor(images, return_tensors="pt")))


def text_vectors(
    directory: Path, texts: list[str], kind: Any = transformers.AutoTokenizer, **padding: Any
) -> Array:
    """What transformers makes of texts when it is called directly."""
    model = transformers.AutoModel.from_pretrained(directory)
    tokenizer = kind.from_pretrained(directory)
    with torch.no_grad():
        return unit(
            model.get_text_features(
                **tokenizer(texts, truncation=True, return_tensors="pt", **padding)
            )
        )


def unit(output: Any) -> Array:
    vectors: Array = torch.nn.functional.normalize(output.pooler_output, dim=1).numpy()
    return vectors


@pytest.mark.parametrize(
    ("make", "texts", "edge"),
    [
        (make_clip, {"padding": True}, 40),
        (make_metaclip2, {"padding": True}, 40),
        (make_chinese_clip, {"padding": True}, 40),
        (make_altclip, {"padding": True}, 40),
        (make_aimv2, {"padding": True}, 40),
        (make_align, SIXTY_FOUR, LARGE),
        (make_published_siglip, SIXTY_FOUR, 40),
        # AutoTokenizer takes the tokenizer that the files name, which keeps upper case.
        (make_published_siglip2, {**SIXTY_FOUR, "kind": transformers.Siglip2Tokenizer}, 40),
        (make_published_naflex, SIXTY_FOUR, LARGE),
    ],
)
def test_vectors_equal_those_of_transformers(
    make: Callable[[Path], Path], texts: dict[str, Any], edge: int, tmp_path: Path
) -> None:
    directory = make(tmp_path)
    encoder = load_encoder(str(directory), precision="reference")
    expected = image_vectors(directory, pictures(edge))
    np.testing.assert_allclose(encoder.encode_images(pictures(edge)), expected, atol=1e-5)
    expected = text_vectors(directory, TEXTS, **texts)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("make", [make_published_siglip2, make_published_naflex])
def test_siglip_2_reads_upper_case_as_lower_case(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    lower, upper, other = load_encoder(str(make(tmp_path))).encode_texts(["a dog", "A Dog", "cat"])
    assert (lower == upper).all()
    assert (lower != other).any()


def test_siglip_would_read_a_text_padded_otherwise_as_another(tmp_path: Path) -> None:
    directory = make_siglip(tmp_path)
    padded = text_vectors(directory, ["a dog"], padding="max_length", max_length=12)
    bare = text_vectors(directory, ["a dog"], padding=True)
    assert np.abs(padded - bare).max() > 1e-3


def test_half_precision_stays_faithful(tmp_path: Path) -> None:
    tower = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
    }
    directory = str(make_clip(tmp_path, tower=tower, dim=64))
    fast, exact = load_encoder(directory), load_encoder(directory, precision="reference")
    if pick_dtype(torch.device("cpu"), "auto") == torch.float32:
        pytest.skip("this processor does not compute in half precision")
    for ours, reference in (
        (fast.encode_images(pictures()), exact.encode_images(pictures())),
        (fast.encode_texts(TEXTS), exact.encode_texts(TEXTS)),
    ):
        cosines = (ours * reference).sum(axis=1)
        assert cosines.min() >= 0.999
        assert (ours != reference).any()


def test_a_checkpoint_saved_in_half_precision_is_computed_in_float32_as_reference(
    copy: Path,
) -> None:
    path = copy / "model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(path).items()}
    # The same numbers, in a file of the other format.
    save_file({name: tensor.float() for name, tensor in half.items()}, path, {"format": "pt"})
    expected = load_encoder(str(copy), precision="reference").encode_images(pictures())
    save_file(half, path, {"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    found = load_encoder(str(copy), precision="reference").encode_images(pictures())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_texts_over_the_limit_are_cut_with_one_warning(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(str(clip))
    with caplog.at_level(logging.WARNING, logger="retrieval_pipeline"):
        exactly = encoder.encode_texts(["a b c d e f g h i j k l m n"])
        assert not caplog.records
        longer = encoder.encode_texts(["a b c d e f g h i j k l m n o", 20 * "long ", "short"])
    assert [record.getMessage() for record in caplog.records] == [
        "2 texts are longer than the model's limit of 16 tokens: the rest is ignored"
    ]
    np.testing.assert_allclose(longer[0], exactly[0], atol=0.01)


def test_a_text_has_the_same_vector_in_any_company(clip: Path) -> None:
    encoder = load_encoder(str(clip), precision="reference")
    texts = [f"text {number}" for number in range(2 * TEXT_BATCH + 1)]
    together = encoder.encode_texts(texts)
    for row in (0, TEXT_BATCH, len(texts) - 1):
        alone = encoder.encode_texts([texts[row]])[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_loading_a_model_says_nothing_even_of_weights_that_nobody_needs(
    copy: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = copy / "model.safetensors"
    save_file(load_file(path) | {"superfluous": torch.zeros(1)}, path, {"format": "pt"})
    load_encoder(str(copy)).encode_texts(["a dog"])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_loading_a_model_leaves_the_users_own_transformers_as_talkative_as_before(
    clip: Path,
) -> None:
    logs = transformers.utils.logging
    before = logs.get_verbosity(), logs.is_progress_bar_enabled()
    load_encoder(str(clip))
    assert (logs.get_verbosity(), logs.is_progress_bar_enabled()) == before


def test_a_dimension_that_the_file_leaves_out_is_the_default_of_the_type(copy: Path) -> None:
    for model_type, dim in (("clip", 512), ("siglip", 768)):
        (copy / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert describe(str(copy)).space.dim == dim


def test_a_model_of_another_kind_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(EncoderError, match='is of the type "bert", not of the CLIP family'):
        load_encoder(str(make_bert(tmp_path / "bert")))
    (copy / "config.json").write_text('{"model_type": "clip_vision_model"}')
    with pytest.raises(EncoderError, match='is of the type "clip_vision_model", not of the CLIP'):
        describe(str(copy))


def test_weights_with_holes_are_refused_instead_of_filled_with_noise(copy: Path) -> None:
    path = copy / "model.safetensors"
    weights = load_file(path)
    del weights["visual_projection.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(
        EncoderError, match=r"1 tensors are missing, such as visual_projection\.weight"
    ):
        load_encoder(str(copy))


def test_weights_of_more_layers_than_the_configuration_counts_are_refused(copy: Path) -> None:
    text = json.loads((copy / "config.json").read_text())["text_config"]
    edit(copy / "config.json", text_config=text | {"num_hidden_layers": 1})
    for load in (load_encoder, lambda model: load_text_encoder_of(describe(model).space)):
        with pytest.raises(EncoderError, match=r"weights of more layers than its config\.json"):
            load(str(copy))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_tokenizer_without_its_special_tokens_is_refused(copy: Path) -> None:
    # The class that takes every token from the files, where others have some of their own.
    edit(copy / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", pad_token=None)
    with pytest.raises(EncoderError, match="without a padding token"):
        load_encoder(str(copy))
    edit(copy / "tokenizer_config.json", pad_token="<end>")
    load_encoder(str(copy))
    edit(copy / "tokenizer.json", post_processor=None)
    with pytest.raises(EncoderError, match="ends no text with a special token"):
        load_encoder(str(copy))
    with pytest.raises(EncoderError, match="does not end texts with token"):
        load_text_encoder_of(describe(str(copy)).space)


def test_damaged_files_are_one_clear_line(copy: Path) -> None:
    intact = {path: path.read_bytes() for path in copy.iterdir()}
    for name, contents in (
        ("model.safetensors", intact[copy / "model.safetensors"][:1000]),
        ("model.safetensors", b""),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", intact[copy / "tokenizer.json"][:1000]),
        ("config.json", b'{"model_type": "clip", "projection_dim": 7}'),
        ("config.json", b'{"model_type": "clip", "projection_dim": 24, "text_config": 1}'),
    ):
        (copy / name).write_bytes(contents)
        with pytest.raises(EncoderError, match=f'model "{copy}" ') as caught:
            load_encoder(str(copy))
        assert "\n" not in str(caught.value)
        (copy / name).write_bytes(intact[copy / name])
    load_encoder(str(copy))


def test_a_checkpoint_without_a_tokenizer_is_refused(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(EncoderError, match=r"has no tokenizer, such as tokenizer\.json"):
        describe(str(copy))
