"""The rearranged image towers against transformers' own modules."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from retrieval_pipeline.encoders import clip as clip_module
from retrieval_pipeline.encoders import fused_vision as vision
from retrieval_pipeline.encoders import hardware
from retrieval_pipeline.encoders.fused_vision import LEAST_COSINE, fused_tower
from retrieval_pipeline.encoders.load import load_encoder
from synthetic.checkpoints import (
    SMALL_PICTURES,
    make_chinese_clip,
    make_clip,
    make_published_naflex,
    make_siglip,
)


def make_gelu_clip(directory: Path) -> Path:
    return make_clip(directory, vision={**SMALL_PICTURES, "hidden_act": "gelu"})


def model(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    return transformers.AutoModel.from_pretrained(directory, dtype=dtype).eval()


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["packed", "plain"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With oneDNN's packed weights where it has them, and without."""
    if request.param == "plain":
        monkeypatch.setattr(vision, "packs", lambda dtype: False)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("make", [make_clip, make_gelu_clip, make_siglip, make_chinese_clip])
def test_the_numbers_are_those_of_transformers(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    directory = make(tmp_path)
    pixels = noise(5)
    with torch.inference_mode():
        expected = model(directory).get_image_features(pixel_values=pixels).pooler_output
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1 - LEAST_COSINE)):
            tower = fused_tower(model(directory, dtype))
            assert tower is not None
            found = tower(pixels.to(dtype)).float()
            cosines = torch.cosine_similarity(found, expected)
            assert cosines.min() >= 1 - tolerance
    assert torch.cosine_similarity(expected[:1], expected[1:]).max() < 0.999


def test_pixels_that_fill_no_patch_are_left_out_as_in_transformers(tmp_path: Path) -> None:
    network = model(make_siglip(tmp_path, vision={"image_size": 32, "patch_size": 7}))
    with torch.inference_mode():
        expected = network.get_image_features(pixel_values=noise(2)).pooler_output
        tower = fused_tower(network)
        assert tower is not None
        torch.testing.assert_close(tower(noise(2)), expected, rtol=1e-4, atol=1e-5)


def test_attention_on_a_gpu_is_that_of_the_processor() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        vision.attention_on_gpu(query[:, :, :1], key, value),
        vision.attention_by_image(query[:, :, :1], key, value),
    )


def test_a_tower_of_another_kind_stays_with_transformers(tmp_path: Path) -> None:
    directory = make_published_naflex(tmp_path)
    assert fused_tower(model(directory)) is None
    encoder = load_encoder(str(directory))
    picture = Image.effect_noise((40, 50), 80).convert("RGB")
    assert encoder.encode_images([picture]).shape == (1, encoder.dim)


def test_a_tower_that_computes_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_clip(tmp_path)
    monkeypatch.setitem(vision.ACTIVATIONS, "quick_gelu", ("gelu", "none", 30.0))
    assert fused_tower(model(directory)) is None


def test_an_activation_that_is_unknown_stays_with_transformers(tmp_path: Path) -> None:
    directory = make_clip(tmp_path, vision={**SMALL_PICTURES, "hidden_act": "relu"})
    assert fused_tower(model(directory)) is None


def test_a_picture_has_the_same_vector_in_any_company(tmp_path: Path) -> None:
    tower = fused_tower(model(make_clip(tmp_path)))
    assert tower is not None
    with torch.inference_mode():
        together, alone = tower(noise(7)), tower(noise(7)[3:4])
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-5)


def test_several_devices_encode_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(make_clip(tmp_path))
    monkeypatch.setattr(hardware, "available_cores", lambda: 2)
    pixels = [np.full((32, 32, 3), value, np.uint8) for value in range(0, 250, 10)]
    one = load_encoder(directory, device="cpu")
    used = set()
    all_busy = threading.Barrier(4, timeout=60)
    watched = threading.Event()

    def watched_tower(network: Any) -> Any:
        tower = fused_tower(network)
        assert tower is not None

        def tower_of_its_device(pixels: torch.Tensor) -> torch.Tensor:
            if watched.is_set():
                used.add(tower)
                all_busy.wait()
            return tower(pixels)

        return tower_of_its_device

    monkeypatch.setattr(clip_module, "fused_tower", watched_tower)
    monkeypatch.setattr(clip_module, "pick_devices", lambda _: 2 * [torch.device("cpu")])
    two = load_encoder(directory, device="cpu")
    with one.encode_threads() as threads, two.encode_threads() as more:
        assert (threads.count, more.count) == (2, 4)
    watched.set()
    threads = [threading.Thread(target=two.encode_pixels, args=(pixels[:3],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(used) == 2
    watched.clear()
    np.testing.assert_allclose(two.encode_pixels(pixels), one.encode_pixels(pixels), atol=0.01)


def test_lanes_leave_the_number_of_threads_as_it_was(tmp_path: Path) -> None:
    encoder = load_encoder(str(make_clip(tmp_path)), device="cpu")
    found: list[int] = []

    def ask(enter: Callable[[], None] = lambda: None) -> None:
        enter()
        found.append(torch.get_num_threads())

    before = torch.get_num_threads()
    with encoder.encode_threads() as threads:
        thread = threading.Thread(target=ask, args=(threads.enter,))
        thread.start()
        thread.join()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [1, before]
    assert torch.get_num_threads() == before


def test_an_encoder_knows_how_near_it_came_to_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1e9 < hardware.measured_peak(torch.float32) < 1e13
    directory = str(make_clip(tmp_path))
    encoder = load_encoder(directory, device="cpu")
    # Two layers of 32 x 32 and 32 x 64 weights, 17 tokens: products, then attention.
    operations = 2 * 2 * 17 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 17 * 32)
    monkeypatch.setattr(clip_module, "measured_peak", lambda _: 1000.0 * operations)
    assert encoder.efficiency(images=10_000, seconds=20.0) == pytest.approx(0.5)
    # Too short to be worth measuring the peak; a tower that nobody has counted.
    assert encoder.efficiency(images=10, seconds=0.1) is None
    exact = load_encoder(directory, device="cpu", precision="reference")
    assert exact.efficiency(images=10_000, seconds=20.0) is None
