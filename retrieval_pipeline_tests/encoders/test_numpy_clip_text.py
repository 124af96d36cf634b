import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from retrieval_pipeline.encoders.load import describe, load_encoder, load_text_encoder_of
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import Vectors
from synthetic.checkpoints import make_chinese_clip, make_clip

TEXTS = ["a dog", "snow", "a red car in the snow", "", "caf\u00e9 \U0001f600", "x" * 40, "cat"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip")


def change_text_config(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_bytes())
    config["text_config"].update(values)
    file.write_text(json.dumps(config))


def change_dtype(directory: Path, dtype: torch.dtype) -> None:
    file = directory / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def light(directory: Path) -> Vectors:
    space = describe(str(directory), precision="reference").space
    encode = load_text_encoder_of(space)
    assert encode is not None
    return encode(TEXTS)


def heavy(directory: Path) -> Vectors:
    return load_encoder(str(directory), device="cpu", precision="reference").encode_texts(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: None,
        lambda directory: change_text_config(directory, hidden_act="gelu"),
        lambda directory: change_text_config(directory, layer_norm_eps=1e-3),
        lambda directory: change_text_config(directory, num_attention_heads=2),
        lambda directory: change_text_config(directory, eos_token_id=2),
        lambda directory: change_dtype(directory, torch.float16),
        lambda directory: change_dtype(directory, torch.bfloat16),
    ],
    ids=["plain", "gelu", "epsilon", "heads", "former end", "float16", "bfloat16"],
)
def test_texts_become_what_transformers_makes_of_them(clip: Path, change) -> None:  # type: ignore[no-untyped-def]
    change(clip)
    np.testing.assert_allclose(light(clip), heavy(clip), atol=1e-5)


def test_a_text_has_the_same_vector_in_any_company(clip: Path) -> None:
    space = describe(str(clip)).space
    encode = load_text_encoder_of(space)
    assert encode is not None
    alone = np.concatenate([encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encode(TEXTS), alone, atol=1e-6)


def test_neither_torch_nor_transformers_is_imported(clip: Path) -> None:
    code = (
        "import sys\n"
        "from retrieval_pipeline.encoders.load import describe, load_text_encoder_of\n"
        f"load_text_encoder_of(describe({str(clip)!r}).space)(['a dog'])\n"
        "assert not {'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_families_are_left_to_transformers(tmp_path: Path, clip: Path) -> None:
    chinese = make_chinese_clip(tmp_path / "chinese")
    assert load_text_encoder_of(describe(str(chinese)).space) is None
    change_text_config(clip, hidden_act="silu")
    assert load_text_encoder_of(describe(str(clip)).space) is None


def test_a_model_that_changed_is_refused(clip: Path) -> None:
    space = describe(str(clip)).space
    change_text_config(clip, layer_norm_eps=1e-3)
    with pytest.raises(EncoderError, match="index again"):
        load_text_encoder_of(space)


def test_damaged_files_are_one_clear_line(clip: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        copy = Path(shutil.copytree(clip, tmp_path / name))
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        encode_of = describe(str(copy)).space
        with pytest.raises(EncoderError, match=r"damaged|cannot be read"):
            load_text_encoder_of(encode_of)(TEXTS)  # type: ignore[misc]
