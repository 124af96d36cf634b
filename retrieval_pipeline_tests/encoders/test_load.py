import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_pipeline.encoders.hardware import pick_device, pick_dtype, to_tensor
from retrieval_pipeline.encoders.load import describe, load_encoder, load_encoder_of
from retrieval_pipeline.errors import EncoderError, VectorError
from retrieval_pipeline.images.transform import ImageTransform
from retrieval_pipeline.vectors import VectorSpace
from synthetic.checkpoints import make_clip, poison


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_clip(tmp_path_factory.mktemp("clip")))


def heavy_imports_of(code: str) -> str:
    """Run `code` in a fresh interpreter and return which of the heavy packages it imported."""
    report = "import sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    assert heavy_imports_of("import retrieval_pipeline, retrieval_pipeline.encoders.load") == "[]"


def test_describing_an_encoder_imports_neither_torch_nor_transformers(clip: str) -> None:
    code = "from retrieval_pipeline.encoders.load import describe; describe({!r})"
    assert heavy_imports_of(code.format("offline")) == "[]"
    assert heavy_imports_of(code.format(clip)) == "[]"


def test_a_text_under_the_offline_model_imports_neither_torch_nor_transformers() -> None:
    code = "from retrieval_pipeline.encoders.load import load_encoder"
    assert heavy_imports_of(f"{code}; load_encoder('offline').encode_texts(['a dog'])") == "[]"


@pytest.mark.parametrize("precision", ["auto", "reference"])
def test_the_loaded_encoder_is_the_one_described(clip: str, precision: str) -> None:
    for model in ("offline", clip):
        described = describe(model, precision=precision)
        encoder = load_encoder(model, precision=precision)
        assert (encoder.space, encoder.transform) == (described.space, described.transform)
        assert (encoder.name, encoder.dim) == (model, described.space.dim)
        assert (encoder.revision, encoder.preprocessing) == (
            described.space.revision,
            described.space.preprocessing,
        )


def test_the_reference_decodes_every_pixel_and_is_a_space_of_its_own(clip: str) -> None:
    for model in ("offline", clip):
        auto, reference = describe(model), describe(model, precision="reference")
        assert (auto.transform.shrink_on_load, reference.transform.shrink_on_load) == (2, 0)
        assert auto.space.key != reference.space.key


def test_the_encoder_of_a_space_is_found_again(clip: str) -> None:
    for precision in ("auto", "reference"):
        space = describe(clip, precision=precision).space
        assert load_encoder_of(space).space == space


def test_a_space_that_nobody_makes_any_more_is_refused(clip: str) -> None:
    space = describe(clip).space
    former = VectorSpace(space.model, space.revision, space.dim, "as in the old days")
    with pytest.raises(EncoderError, match="index again"):
        load_encoder_of(former)


def test_nothing_gives_no_vectors_of_the_right_dimension(clip: str) -> None:
    encoder = load_encoder(clip)
    for vectors in (
        encoder.encode_texts([]),
        encoder.encode_images([]),
        encoder.encode_pixels([]),
    ):
        assert vectors.shape == (0, encoder.dim)
        assert vectors.dtype == np.float32


def test_numbers_that_are_none_are_an_error_and_no_vector(tmp_path: Path) -> None:
    encoder = load_encoder(str(poison(make_clip(tmp_path))))
    with pytest.raises(VectorError, match="failed on images: vector 0 is zero or not finite"):
        encoder.encode_images([Image.new("RGB", (40, 40))])
    with pytest.raises(VectorError, match="failed on texts: vector 0 is zero or not finite"):
        encoder.encode_texts(["a dog"])


def test_a_misspelt_precision_is_refused(clip: str) -> None:
    with pytest.raises(EncoderError, match='precision "exact" does not exist: use "auto", '):
        load_encoder(clip, precision="exact")


def test_a_device_that_is_not_there_is_refused(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match=r'device "cuda" is not there: .* finds .*cpu'):
        load_encoder(clip, device="cuda")
    with pytest.raises(EncoderError, match='device "gpu" does not exist: use "auto"'):
        load_encoder(clip, device="gpu")


def test_a_second_gpu_needs_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(EncoderError, match=r'device "cuda:1" is not there: .* finds cuda \(1\)'):
        pick_device("cuda:1")


def test_half_precision_is_taken_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu, mps = torch.device("cuda"), torch.device("cpu"), torch.device("mps")
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        assert pick_dtype(cuda, "auto") == expected
    assert pick_dtype(mps, "auto") == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert pick_dtype(cpu, "auto") == torch.float32
    for device in (cuda, cpu, mps):
        assert pick_dtype(device, "reference") == torch.float32


def test_pixels_are_normalised_channel_by_channel() -> None:
    transform = ImageTransform(1, None, "bicubic", mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels = np.array([[[0, 255, 51], [255, 0, 255]]], np.uint8)
    tensor = to_tensor([pixels], transform, torch.device("cpu"))
    expected = [[[[0.0, 1.0]], [[1.0, -1.0]], [[-3.2, 0.0]]]]
    torch.testing.assert_close(tensor, torch.tensor(expected))
