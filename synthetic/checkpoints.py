"""Tiny random checkpoints, made on the spot: the real file formats in a few hundred kilobytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SMALL_PICTURES = {"image_size": 32, "patch_size": 8}


def make_clip(
    directory: Path,
    *,
    seed: int = 0,
    tower: dict[str, int] = TOWER,
    vision: Mapping[str, Any] = SMALL_PICTURES,
    dim: int = 24,
) -> Path:
    """Save a CLIP whose tokens are letters, at most 16 of them a text.

    Args:
        directory: Where to.
        seed: Of the random weights.
        tower: Shape of both towers.
        vision: What more there is to say of the image tower: sizes, or another shape.
        dim: Of the vectors.
    """
    vocabulary = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<start>", "<end>"]
    start, end = len(vocabulary) - 2, len(vocabulary) - 1
    text = {
        **tower,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 16,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config={**tower, **vision},
        projection_dim=dim,
    )
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=[],
        unk_token="<end>",
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        model_max_length=16,
    )
    edge = vision["image_size"]
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size=edge)
    return _save(directory, seed, transformers.CLIPModel, config, tokenizer, processor)


def make_siglip(directory: Path, *, seed: int = 0) -> Path:
    """Save a SigLIP of 32 x 32 pixels and 12 tokens a text, always padded to all of them."""
    tokenizer = _letter_tokenizer(limit=12)
    config = transformers.SiglipConfig(
        text_config=_siglip_text(tokenizer, limit=12),
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
    )
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(directory, seed, transformers.SiglipModel, config, tokenizer, processor)


def make_siglip2(directory: Path, *, seed: int = 0) -> Path:
    """Save a SigLIP 2 that takes pictures of any shape (NaFlex), cut into at most 16 patches."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = [*special, "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = transformers.Siglip2Tokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, model_max_length=12
    )
    config = transformers.Siglip2Config(
        text_config=_siglip_text(tokenizer, limit=12),
        vision_config={**TOWER, "patch_size": 8, "num_patches": 16},
    )
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _save(directory, seed, transformers.Siglip2Model, config, tokenizer, processor)


def make_chinese_clip(directory: Path, *, seed: int = 0) -> Path:
    """Save a Chinese-CLIP of 32 x 32 pixels: a BERT reads the texts, 20 tokens at most."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只狗猫在草地上的照片"]
    tokenizer = transformers.BertTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, model_max_length=20
    )
    config = transformers.ChineseCLIPConfig(
        text_config={**TOWER, "vocab_size": len(vocabulary), "max_position_embeddings": 20},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    processor = transformers.ChineseCLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return _save(directory, seed, transformers.ChineseCLIPModel, config, tokenizer, processor)


def make_bert(directory: Path) -> Path:
    """Save a BERT: it reads texts but sees no images."""
    config = transformers.BertConfig(**TOWER, vocab_size=100)
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(directory)
    return directory


def _siglip_text(tokenizer: Any, limit: int) -> dict[str, Any]:
    return {
        **TOWER,
        "projection_size": TOWER["hidden_size"],
        "vocab_size": len(tokenizer),
        "max_position_embeddings": limit,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _letter_tokenizer(limit: int) -> Any:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<pad>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=limit,
        model_input_names=["input_ids"],
    )


def _save(
    directory: Path, seed: int, kind: Any, config: Any, tokenizer: Any, processor: Any
) -> Path:
    torch.manual_seed(seed)
    kind(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def poison(directory: Path) -> Path:
    """Overwrite the weights of a saved checkpoint with NaN."""
    path = directory / "model.safetensors"
    weights = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    return directory
