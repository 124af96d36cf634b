"""Image towers in eight bits, against the same towers in float32."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from retrieval_pipeline.encoders import clip, int8
from retrieval_pipeline.encoders.fused_vision import FusedTower, fused_tower
from retrieval_pipeline.encoders.hardware import faithful_format, pick_dtype
from retrieval_pipeline.encoders.int8 import FULL, HALF, Int8Linear, Int8Product, weight_levels
from retrieval_pipeline.encoders.load import describe, load_encoder, load_encoder_of
from synthetic.checkpoints import make_clip, make_massive_clip, make_siglip

pytestmark = pytest.mark.skipif(
    weight_levels() is None, reason="there are no exact products in eight bits here"
)


@pytest.fixture(scope="module")
def massive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model some of whose activations are hundreds of times as large as the others."""
    return make_massive_clip(tmp_path_factory.mktemp("massive"))


def model(directory: Path) -> Any:
    return transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()


def noise(count: int) -> torch.Tensor:
    """Return pixels of pictures of different colours."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(count, 3, 1, 1, generator=generator)
    return colours + 0.5 * torch.randn(count, 3, 32, 32, generator=generator)


def test_massive_activations_leave_eight_bits_faithful_and_would_not_if_all_were_rounded(
    massive: Path,
) -> None:
    network = model(massive)
    inputs: list[torch.Tensor] = []
    norm = network.vision_model.encoder.layers[-1].layer_norm1
    norm.register_forward_hook(lambda _, given, made: inputs.append(made.abs().amax(dim=(0, 1))))
    with torch.inference_mode():
        true = network.get_image_features(pixel_values=noise(20)).pooler_output
        assert inputs[0].max() > 200 * inputs[0].median()
        assert torch.cosine_similarity(true[:-1], true[1:]).mean() < 0.9
        tower = fused_tower(network, int8=True)
        assert tower is not None
        assert torch.cosine_similarity(tower(noise(20)), true).min() > 0.999
        naive: Any = partial(Int8Linear, outliers=0)
        assert torch.cosine_similarity(FusedTower(network, naive)(noise(20)), true).mean() < 0.9


@pytest.mark.parametrize("make", [make_clip, make_siglip])
def test_every_kind_of_tower_computes_in_eight_bits(make: Any, tmp_path: Path) -> None:
    network = model(make(tmp_path))
    with torch.inference_mode():
        tower = fused_tower(network, int8=True)
        assert tower is not None
        assert tower.int8
        true = network.get_image_features(pixel_values=noise(5)).pooler_output
        assert torch.cosine_similarity(tower(noise(5)), true).min() > 0.999


def test_a_picture_has_the_same_vector_in_any_company(massive: Path) -> None:
    tower = fused_tower(model(massive), int8=True)
    assert tower is not None
    with torch.inference_mode():
        together, alone = tower(noise(7)), tower(noise(7)[3:4])
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-5)


def test_products_are_exact_with_the_weights_that_this_processor_can_take() -> None:
    levels = weight_levels()
    assert levels in (HALF, FULL)
    weight = torch.full((3, 64), levels, dtype=torch.int8)
    found = Int8Product(weight, torch.ones(3))(torch.full((2, 64), FULL, dtype=torch.int8))
    assert found.tolist() == [[64.0 * levels * FULL] * 3] * 2


def test_the_format_that_is_told_without_torch_is_the_one_that_is_taken() -> None:
    taken = str(pick_dtype(torch.device("cpu"), "auto")).removeprefix("torch.")
    assert faithful_format("cpu") in (None, taken)


def test_vectors_of_eight_bits_have_a_space_of_their_own_in_which_texts_are_as_before(
    massive: Path,
) -> None:
    plain = load_encoder(str(massive), device="cpu")
    space = describe(str(massive), precision="int8").space
    assert space.key != plain.space.key
    encoder = load_encoder_of(space, device="cpu")
    assert (encoder.space, encoder.number_format) == (space, "int8")
    picture = Image.effect_noise((40, 50), 80).convert("RGB")
    assert 0.995 < (encoder.encode_images([picture]) @ plain.encode_images([picture]).T)[0, 0] < 1
    np.testing.assert_allclose(
        encoder.encode_texts(["a cat"]), plain.encode_texts(["a cat"]), atol=0.01
    )


def test_where_products_are_not_exact_the_same_space_is_filled_in_another_format(
    massive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (int8, clip):
        monkeypatch.setattr(module, "weight_levels", lambda: None)
    encoder = load_encoder(str(massive), device="cpu", precision="int8")
    assert encoder.space == describe(str(massive), precision="int8").space
    assert encoder.number_format != "int8"
