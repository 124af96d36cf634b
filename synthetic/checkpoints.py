"""Tiny random checkpoints, made on the spot: the real file formats in a few hundred kilobytes."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
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
MASSIVE_TOWER = {**TOWER, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
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
    tokenizer = make_clip_tokenizer(limit=16)
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config={**tower, **vision},
        projection_dim=dim,
    )
    edge = vision["image_size"]
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size=edge)
    return _save(directory, seed, transformers.CLIPModel, config, tokenizer, processor)


def make_massive_clip(directory: Path, *, seed: int = 0, times: float = 300.0) -> Path:
    """Save a CLIP in whose image tower some channels are hundreds of times as large as the median.

    As in "Massive Activations" (arXiv:2402.17762), the first layer writes them into the residual
    stream, the same for every picture, and they stay there to the last. The norms of the layers
    after it scale the other channels up again, and their weights take little of the large ones.

    Args:
        directory: Where to.
        seed: Of the random weights.
        times: How large these channels are, where the others are about 1.
    """
    make_clip(directory, seed=seed, tower=MASSIVE_TOWER, dim=64)
    file = directory / "model.safetensors"
    weights, channels = load_file(file), [5, 40]
    prefix = "vision_model.encoder.layers"
    weights[f"{prefix}.0.mlp.fc2.bias"][channels] = torch.tensor([times, -times])
    # The standard deviation of a token whose other channels are small against these.
    deviation = times * (len(channels) / MASSIVE_TOWER["hidden_size"]) ** 0.5
    others = torch.ones(MASSIVE_TOWER["hidden_size"], dtype=torch.bool)
    others[channels] = False
    for layer in range(1, MASSIVE_TOWER["num_hidden_layers"]):
        for norm, readers in (
            ("layer_norm1", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("layer_norm2", ("mlp.fc1",)),
        ):
            gains = weights[f"{prefix}.{layer}.{norm}.weight"]
            gains[others] *= deviation
            gains[channels] *= 3 * deviation
            for reader in readers:
                weights[f"{prefix}.{layer}.{reader}.weight"][:, channels] /= 3 * times
    gains = weights["vision_model.post_layernorm.weight"]
    gains[others] *= deviation
    gains[channels] = 0.01
    save_file(weights, file, metadata={"format": "pt"})
    return directory


def make_clip_tokenizer(limit: int) -> Any:
    """Return a tokenizer of the kind of CLIP whose tokens are letters, `limit` at most."""
    vocabulary = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<start>", "<end>"]
    return transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=[],
        unk_token="<end>",
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        model_max_length=limit,
    )


def make_siglip(
    directory: Path, *, seed: int = 0, vision: Mapping[str, Any] = SMALL_PICTURES
) -> Path:
    """Save a SigLIP whose texts have 12 tokens, always padded to all of them.

    Args:
        directory: Where to.
        seed: Of the random weights.
        vision: What more there is to say of the image tower: sizes, or another shape.
    """
    tokenizer = _letter_tokenizer(limit=12)
    tower = {**TOWER, **vision}
    config = transformers.SiglipConfig(
        text_config={
            **_siglip_text(
                len(tokenizer), 12, end=tokenizer.eos_token_id, padding=tokenizer.pad_token_id
            ),
            "projection_size": tower["hidden_size"],
        },
        vision_config=tower,
    )
    edge = vision["image_size"]
    processor = transformers.SiglipImageProcessorPil(size={"height": edge, "width": edge})
    return _save(directory, seed, transformers.SiglipModel, config, tokenizer, processor)


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


def make_published_siglip(directory: Path) -> Path:
    """Save a SigLIP with the files of google/siglip-*; its tokenizer drops case and points."""
    vocabulary = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a dog", "two cats sat on the mat", "x"]),
        model_writer=vocabulary,
        vocab_size=64,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(vocabulary.getvalue())
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    special = {"1": _special("</s>", strips=True), "2": _special("<unk>", strips=True)}
    _write_json(
        directory / "tokenizer_config.json",
        {
            "added_tokens_decoder": special,
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "model_input_names": ["input_ids"],
            "model_max_length": 64,
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
            **names,
        },
    )
    text = _siglip_text(64, limit=64, end=1, padding=1)
    config = transformers.SiglipConfig(text_config=text, vision_config={**TOWER, **SMALL_PICTURES})
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(directory, 0, transformers.SiglipModel, config, None, processor)


def make_published_siglip2(directory: Path) -> Path:
    """Save a SigLIP 2 of a fixed size with the files of google/siglip2-base-patch16-224.

    It calls itself "siglip" and its tokenizer Gemma's, which keeps upper case.
    """
    text = _siglip_text(_write_gemma(directory, "SiglipProcessor"), limit=64, end=1, padding=0)
    config = transformers.SiglipConfig(text_config=text, vision_config={**TOWER, **SMALL_PICTURES})
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    return _save(directory, 0, transformers.SiglipModel, config, None, processor)


def make_published_naflex(directory: Path) -> Path:
    """Save a SigLIP 2 with the files of google/siglip2-base-patch16-naflex."""
    text = _siglip_text(_write_gemma(directory, "Siglip2Processor"), limit=64, end=1, padding=0)
    config = transformers.Siglip2Config(
        text_config=text, vision_config={**TOWER, "patch_size": 8, "num_patches": 16}
    )
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _save(directory, 0, transformers.Siglip2Model, config, None, processor)


def make_metaclip2(directory: Path) -> Path:
    """Save a MetaCLIP 2: CLIP's towers, and a tokenizer of XLM-RoBERTa's kind that keeps case."""
    tokenizer = _xlm_tokenizer(limit=77)
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    config = transformers.MetaClip2Config(
        text_config=text, vision_config={**TOWER, **SMALL_PICTURES}, projection_dim=24
    )
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return _save(directory, 0, transformers.MetaClip2Model, config, tokenizer, processor)


def make_altclip(directory: Path) -> Path:
    """Save an AltCLIP: XLM-RoBERTa reads the texts, whose positions start after the padding's."""
    tokenizer = _xlm_tokenizer(limit=512)
    text = {
        **TOWER,
        "project_dim": 24,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 514,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    config = transformers.AltCLIPConfig(
        text_config=text, vision_config={**TOWER, **SMALL_PICTURES}, projection_dim=24
    )
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return _save(directory, 0, transformers.AltCLIPModel, config, tokenizer, processor)


def make_align(directory: Path) -> Path:
    """Save an ALIGN: BERT reads the texts, and an EfficientNet sees the images."""
    letters = "abcdefghijklmnopqrstuvwxyz!"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters]
    tokenizer = transformers.BertTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, model_max_length=512
    )
    vision = {
        "image_size": 32,
        "in_channels": [32],
        "out_channels": [16],
        "kernel_sizes": [3],
        "strides": [1],
        "expand_ratios": [1],
        "num_block_repeats": [1],
        "depthwise_padding": [],
        "hidden_dim": 32,
    }
    text = {**TOWER, "vocab_size": len(vocabulary), "max_position_embeddings": 512}
    config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=32)
    processor = transformers.EfficientNetImageProcessorPil(
        size={"height": 37, "width": 37},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
        resample=2,
    )
    return _save(directory, 0, transformers.AlignModel, config, tokenizer, processor)


def make_aimv2(directory: Path) -> Path:
    """Save an AIMv2 of the kind that was tuned to texts (apple/aimv2-large-patch14-224-lit)."""
    tokenizer = make_clip_tokenizer(limit=77)
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = transformers.Aimv2Config(
        text_config=text, vision_config={**TOWER, **SMALL_PICTURES}, projection_dim=24
    )
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return _save(directory, 0, transformers.Aimv2Model, config, tokenizer, processor)


def make_bert(directory: Path) -> Path:
    """Save a BERT: it reads texts but sees no images."""
    config = transformers.BertConfig(**TOWER, vocab_size=100)
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(directory)
    return directory


def _siglip_text(vocabulary: int, limit: int, *, end: int, padding: int) -> dict[str, Any]:
    return {
        **TOWER,
        "projection_size": TOWER["hidden_size"],
        "vocab_size": vocabulary,
        "max_position_embeddings": limit,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": padding,
    }


def _write_gemma(directory: Path, processor: str) -> int:
    """Write a tokenizer of Gemma's kind, as the published SigLIP 2 have it; return its size."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*special, "▁", *bytes_, *letters, *letters.upper(), *"!?.,"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(vocabulary)},
            merges=[],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": True,
            "added_tokens_decoder": {
                str(number): _special(token) for number, token in enumerate(special)
            },
            "bos_token": "<bos>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<eos>",
            "mask_token": "<mask>",
            "model_input_names": ["input_ids"],
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": "<pad>",
            "padding_side": "right",
            "processor_class": processor,
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "unk_token": "<unk>",
        },
    )
    return len(vocabulary)


def _xlm_tokenizer(limit: int) -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *letters.upper(), "!", "<mask>"]
    return transformers.XLMRobertaTokenizer(
        vocab=[(token, -float(number)) for number, token in enumerate(vocabulary)],
        model_max_length=limit,
    )


def _special(content: str, *, strips: bool = False) -> dict[str, Any]:
    return {
        "content": content,
        "lstrip": strips,
        "normalized": strips,
        "rstrip": strips,
        "single_word": False,
        "special": True,
    }


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    path.write_text(json.dumps(contents))


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
    directory: Path, seed: int, kind: Any, config: Any, tokenizer: Any | None, processor: Any
) -> Path:
    torch.manual_seed(seed)
    kind(config).save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def poison(directory: Path) -> Path:
    """Overwrite the weights of a saved checkpoint with NaN."""
    path = directory / "model.safetensors"
    weights = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    return directory
