import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from retrieval_pipeline.encoders.checkpoint import Checkpoint
from retrieval_pipeline.encoders.hardware import to_tensor
from retrieval_pipeline.encoders.preprocessing import BOUNDED_EDGE, read_preprocessing
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.transform import transform_image

NORMALISED = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
CLIP = {
    **NORMALISED,
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 40},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 36},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
SIGLIP = {
    **NORMALISED,
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 48},
    "resample": 2,
}
# As openai/clip-vit-large-patch14-336 is published.
FIRST_CLIP = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 336,
}


def checkpoint_of(
    directory: Path,
    image_config: dict[str, Any],
    *,
    model_type: str = "clip",
    file: str = "preprocessor_config.json",
) -> Checkpoint:
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    (directory / file).write_text(json.dumps(image_config))
    return Checkpoint("tiny", directory, "1")


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = ((60, 90, 3), (33, 41, 3), (300, 47, 3), (20, 20, 3))
    return [Image.fromarray(random.integers(0, 256, shape, np.uint8)) for shape in shapes]


@pytest.mark.parametrize(
    "config",
    [
        CLIP,
        CLIP | {"resample": 1, "do_normalize": False},
        CLIP | {"do_center_crop": False, "size": {"height": 32, "width": 32}},
        SIGLIP,
        SIGLIP | {"image_processor_type": "SiglipImageProcessorFast", "resample": 3},
        SIGLIP | {"image_processor_type": "ViTImageProcessor"},
        SIGLIP | {"image_processor_type": "ViTImageProcessor", "size": 32},
        SIGLIP | {"image_mean": 0.5, "image_std": 0.25},
        FIRST_CLIP,
    ],
)
def test_the_transform_makes_the_input_that_transformers_makes(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    checkpoint = checkpoint_of(tmp_path, config)
    preprocessing = read_preprocessing(checkpoint, "reference")
    assert preprocessing.processor is None
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for picture in pictures():
        pixels = transform_image(picture, preprocessing.transform)
        ours = to_tensor([pixels], preprocessing.transform, torch.device("cpu"))
        expected = theirs([picture], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_a_file_for_the_whole_processor_comes_first(tmp_path: Path) -> None:
    checkpoint_of(tmp_path, SIGLIP)
    checkpoint = checkpoint_of(tmp_path, {"image_processor": CLIP}, file="processor_config.json")
    assert read_preprocessing(checkpoint, "auto").transform.resize == 40


def test_what_the_file_leaves_out_is_the_default_of_transformers(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, {"image_processor_type": "CLIPImageProcessor"})
    transform = read_preprocessing(checkpoint, "auto").transform
    assert (transform.resize, transform.crop, transform.resample) == (224, (224, 224), "bicubic")
    assert transform.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize(
    "config",
    [
        CLIP | {"rescale_factor": 1 / 127.5},
        CLIP | {"do_rescale": False},
        CLIP | {"do_resize": False},
        CLIP | {"crop_size": 41},
        CLIP | {"resample": 0},
        CLIP | {"size": {"shortest_edge": 40, "longest_edge": 60}},
        {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16},
    ],
)
def test_a_processor_that_no_transform_expresses_runs_itself_on_bounded_pictures(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    preprocessing = read_preprocessing(checkpoint_of(tmp_path, config), "auto")
    kind = config["image_processor_type"]
    assert type(preprocessing.processor).__name__ == f"{kind}Pil"
    assert (preprocessing.transform.resize, preprocessing.transform.crop) == (BOUNDED_EDGE, None)
    assert f"then {kind}@" in preprocessing.fingerprint


def test_settings_that_only_the_processor_reads_are_in_the_fingerprint(tmp_path: Path) -> None:
    fingerprints = {
        read_preprocessing(
            checkpoint_of(
                tmp_path,
                {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": patches},
            ),
            "auto",
        ).fingerprint
        for patches in (16, 64)
    }
    assert len(fingerprints) == 2


def test_a_checkpoint_that_says_nothing_about_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"it has no preprocessor_config\.json"):
        read_preprocessing(checkpoint_of(tmp_path, {}), "auto")


def test_an_unknown_image_processor_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, {"image_processor_type": "Nobody"}, model_type="nothing")
    with pytest.raises(EncoderError, match='model "tiny" cannot be loaded: ') as caught:
        read_preprocessing(checkpoint, "auto")
    assert "\n" not in str(caught.value)
