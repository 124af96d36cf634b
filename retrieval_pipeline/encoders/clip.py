"""CLIP-family checkpoints through transformers: by hub id or directory, safetensors only."""

import copy
import inspect
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import (
    BaseEncoder,
    Description,
    Encoder,
    ThreadPlan,
    int8_description,
    warn_of_cut_texts,
)
from retrieval_pipeline.encoders.checkpoint import CONFIG, Checkpoint, find_checkpoint
from retrieval_pipeline.encoders.fused_vision import fused_tower
from retrieval_pipeline.encoders.hardware import (
    Precision,
    encode_threads_of,
    measured_peak,
    one_core_each,
    pick_devices,
    pick_dtype,
    to_tensor,
)
from retrieval_pipeline.encoders.int8 import weight_levels
from retrieval_pipeline.encoders.loading import transformers_loading
from retrieval_pipeline.encoders.preprocessing import Preprocessing, read_preprocessing
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.transform import ImageTransform, Pixels
from retrieval_pipeline.vectors import VectorSpace

if TYPE_CHECKING:
    import torch

# Model types with an image and a text tower, and where their configuration holds the dimension.
FAMILY = {
    "aimv2": ("projection_dim",),
    "align": ("projection_dim",),
    "altclip": ("projection_dim",),
    "blip": ("projection_dim",),
    "chinese_clip": ("projection_dim",),
    "clip": ("projection_dim",),
    "clipseg": ("projection_dim",),
    "metaclip_2": ("projection_dim",),
    "siglip": ("vision_config", "hidden_size"),
    "siglip2": ("vision_config", "hidden_size"),
}

# These models were trained on texts padded to full length and pool at the last position: other
# padding would give other vectors.
PADDED_TO_LIMIT = {"siglip", "siglip2"}

# Types of devices on which the rearranged towers are the faster ones; others were not measured.
FUSED_ON = {"cpu", "cuda"}

# In the name of a tensor: it belongs to a layer of a tower.
LAYER = re.compile(r"\.layers?\.\d+\.")

# Texts in one batch: bounds the memory that long lists take.
TEXT_BATCH = 64

# The peak speed is measured, which takes some tenths of a second, only after this many seconds of
# encoding.
WORTH_MEASURING = 10.0

# Tokens (of all images together) in one batch. On one processor core, larger batches are no faster
# and take longer to give a first result. A GPU needs large ones, halved if memory runs out.
BATCH_TOKENS = {"cpu": 800, "cuda": 32_768}


def describe(model: str, revision: str | None, precision: Precision) -> Description:
    """See `encoders.load.describe`."""
    return _read(find_checkpoint(model, revision, weights=False), precision)[0]


def load(model: str, revision: str | None, device: str, precision: Precision) -> Encoder:
    """See `encoders.load.load_encoder`."""
    import torch

    devices = pick_devices(device)
    if precision == "reference" and devices[0].type == "cuda":
        # Otherwise convolutions round their float32 inputs to TF32, which has 10 bits for the
        # fraction. The setting is that of the process.
        torch.backends.cudnn.allow_tf32 = False
    int8 = precision == "int8" and devices[0].type == "cpu" and weight_levels() is not None
    checkpoint = find_checkpoint(model, revision, weights=True)
    description, preprocessing = _read(checkpoint, precision)
    with transformers_loading(checkpoint):
        from transformers import AutoModel

        network, report = AutoModel.from_pretrained(
            checkpoint.directory,
            dtype=torch.float32 if int8 else pick_dtype(devices[0], precision),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = _load_tokenizer(checkpoint)
    _check_weights(model, report)
    _check_tokenizer(model, tokenizer, network.config.text_config)
    network.eval()
    networks = [copy.deepcopy(network).to(other) for other in devices[1:]]
    return ClipEncoder(
        description,
        [network.to(devices[0]), *networks],
        tokenizer,
        preprocessing.processor,
        fuse=precision != "reference" and devices[0].type in FUSED_ON,
        int8=int8,
    )


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the tokenizer with the text rules that the model was trained with.

    SigLIP 2 was trained on lower-cased texts (github.com/google-research/big_vision/issues/166).
    Its checkpoints name Gemma's tokenizer, which keeps upper case. For those that call themselves
    "siglip2" AutoTokenizer takes SigLIP 2's own class instead, but those of a fixed picture size
    call themselves "siglip".
    """
    from transformers import AutoTokenizer, Siglip2Tokenizer

    named = str(checkpoint.read_json("tokenizer_config.json").get("tokenizer_class"))
    lower_cases = (
        checkpoint.read_json(CONFIG).get("model_type") == "siglip"
        and named.removesuffix("Fast") == "GemmaTokenizer"
    )
    return (Siglip2Tokenizer if lower_cases else AutoTokenizer).from_pretrained(
        checkpoint.directory, trust_remote_code=False, local_files_only=True
    )


def _check_weights(model: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the configuration; `report` is transformers'.

    Raises:
        EncoderError: transformers would fill missing tensors with random numbers, or leave out
            layers that the configuration does not count.
    """
    if missing := sorted(report["missing_keys"]):
        raise EncoderError(
            f'model "{model}" has incomplete weights: {len(missing)} tensors are missing, '
            f"such as {missing[0]}"
        )
    # Superfluous tensors of other kinds are common: buffers of old versions, other heads.
    if more := sorted(name for name in report["unexpected_keys"] if LAYER.search(name)):
        raise EncoderError(
            f'model "{model}" has weights of more layers than its {CONFIG} counts, such as '
            f"{more[0]}: take both files from the same model"
        )


def _check_tokenizer(model: str, tokenizer: Any, config: Any) -> None:
    """Refuse a tokenizer without the special tokens that texts are padded with and end with.

    Raises:
        EncoderError: One is missing, or has a number beyond the model's vocabulary.
    """
    if tokenizer.pad_token_id is None:
        raise EncoderError(
            f'model "{model}" has a tokenizer without a padding token: '
            "its tokenizer_config.json must name one"
        )
    tokens = tokenizer("a")["input_ids"]
    if not tokens or tokens[-1] not in tokenizer.all_special_ids:
        raise EncoderError(
            f'model "{model}" has a tokenizer that ends no text with a special token, where the '
            "model reads the meaning: take the tokenizer's files from the same model"
        )
    if max(*tokens, tokenizer.pad_token_id) >= config.vocab_size:
        raise EncoderError(
            f'model "{model}" has a tokenizer with more tokens than the {config.vocab_size} of its '
            f"{CONFIG}: take both files from the same model"
        )


def _read(checkpoint: Checkpoint, precision: Precision) -> tuple[Description, Preprocessing]:
    dim = _read_dim(checkpoint)
    if not checkpoint.has_tokenizer:
        raise EncoderError(f'model "{checkpoint.name}" has no tokenizer, such as tokenizer.json')
    preprocessing = read_preprocessing(checkpoint, precision)
    space = VectorSpace(checkpoint.name, checkpoint.revision, dim, preprocessing.fingerprint)
    description = Description(space, preprocessing.transform)
    if precision == "int8":
        description = int8_description(description)
    return description, preprocessing


def _read_dim(checkpoint: Checkpoint) -> int:
    config = checkpoint.read_json(CONFIG)
    kind = config.get("model_type")
    if kind not in FAMILY:
        raise EncoderError(
            f'model "{checkpoint.name}" is of the type "{kind}", not of the CLIP family '
            f"({', '.join(FAMILY)}): it does not put images and texts into one space"
        )
    dim: Any = config
    for key in FAMILY[kind]:
        dim = dim.get(key) if isinstance(dim, Mapping) else None
    if not isinstance(dim, int):  # not in the file: it is the default of the model type
        with transformers_loading(checkpoint):
            from transformers import AutoConfig

            dim = AutoConfig.from_pretrained(
                checkpoint.directory, trust_remote_code=False, local_files_only=True
            )
        for key in FAMILY[kind]:
            dim = getattr(dim, key)
    return int(dim)


class ClipEncoder(BaseEncoder):
    """A two-tower model of transformers, on one device or copied to several."""

    def __init__(
        self,
        description: Description,
        networks: Sequence[Any],
        tokenizer: Any,
        processor: Any = None,
        *,
        fuse: bool = False,
        int8: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            description: Vector space and image transform of the model.
            networks: The model in evaluation mode, one copy per device.
            tokenizer: The tokenizer of the model.
            processor: transformers' image processor, if the transform alone does not make the
                input; else None.
            fuse: Rearrange the image towers (see `fused_vision`), if possible.
            int8: Let rearranged towers compute in eight bits (see `int8`), if possible.
        """
        network = networks[0]
        towers = [_Tower(each, description.transform, processor, fuse, int8) for each in networks]
        tokens = BATCH_TOKENS.get(network.device.type, BATCH_TOKENS["cpu"])
        batch = max(tokens // _tokens_per_image(network.config.vision_config), 1)
        super().__init__(description, batch=batch)
        self._network = network
        self._fused = towers[0].fused
        # Towers alternate in the queue: threads that each take one keep all devices busy.
        self._threads = encode_threads_of(network.device) * len(towers)
        self._towers: SimpleQueue[tuple[_Tower, torch.cuda.Stream | None]] = SimpleQueue()
        for thread in range(self._threads):
            tower = towers[thread % len(towers)]
            self._towers.put((tower, _new_stream(tower.device)))
        self._tokenizer = tokenizer
        self._limit = _token_limit(tokenizer, network.config.text_config)
        self._padding = "max_length" if network.config.model_type in PADDED_TO_LIMIT else True
        self._text_inputs = inspect.signature(network.get_text_features).parameters.keys()
        # A fast tokenizer must not get new settings while another thread uses it.
        self._tokenizer_lock = threading.Lock()

    @property
    def number_format(self) -> str:
        """See `Encoder.number_format`."""
        if self._fused is not None and self._fused.int8:
            return "int8"
        return str(self._network.dtype).removeprefix("torch.")

    @property
    def gpu(self) -> int | None:
        """See `Encoder.gpu`."""
        device = self._network.device
        return (device.index or 0) if device.type == "cuda" else None

    @contextmanager
    def encode_threads(self) -> Iterator[ThreadPlan]:
        """See `Encoder.encode_threads`."""
        with one_core_each(self._network.device) as enter:
            yield ThreadPlan(self._threads, enter)

    def efficiency(self, images: int, seconds: float) -> float | None:
        """See `Encoder.efficiency`."""
        if self._fused is None or self._network.device.type != "cpu" or seconds < WORTH_MEASURING:
            return None
        import torch

        speed: float = self._fused.operations * images / seconds
        return speed / measured_peak(torch.int8 if self._fused.int8 else self._network.dtype)

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        tower, stream = self._towers.get()
        try:
            return tower.features(pixels, stream)
        finally:
            self._towers.put((tower, stream))

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            features = [
                _features(self._network.get_text_features(**_placed(inputs, self._network)))
                for inputs in self._tokenized(texts)
            ]
        return np.concatenate(features)

    def _tokenized(self, texts: Sequence[str]) -> "list[dict[str, torch.Tensor]]":
        with self._tokenizer_lock:
            whole = self._tokenizer(list(texts), verbose=False)["input_ids"]
            batches = [
                self._tokenizer(
                    list(texts[start : start + TEXT_BATCH]),
                    padding=self._padding,
                    truncation=True,
                    max_length=self._limit,
                    return_tensors="pt",
                )
                for start in range(0, len(texts), TEXT_BATCH)
            ]
        warn_of_cut_texts(sum(len(tokens) > self._limit for tokens in whole), self._limit)
        return [
            {name: batch[name] for name in batch if name in self._text_inputs} for batch in batches
        ]


class _Tower:
    """The image tower of a model on one device.

    Attributes:
        device: Where it computes.
        fused: The faster arrangement of the tower; None if there is none for this model.
    """

    def __init__(
        self, network: Any, transform: ImageTransform, processor: Any, fuse: bool, int8: bool
    ) -> None:
        self._network, self._transform, self._processor = network, transform, processor
        self.device: torch.device = network.device
        fuse = fuse and processor is None
        self.fused = fused_tower(network, int8=True) if fuse and int8 else None
        if self.fused is None and fuse:
            self.fused = fused_tower(network)
        if self.fused is not None:
            network.vision_model = None  # the fused tower has its own copy of the weights

    def features(
        self, pixels: Sequence[Pixels], stream: "torch.cuda.Stream | None"
    ) -> npt.NDArray[np.float32]:
        """Return (n, dim) features, computed on a stream of the device."""
        import torch

        with torch.inference_mode(), nullcontext() if stream is None else torch.cuda.stream(stream):
            if self._processor is None:
                inputs = {"pixel_values": to_tensor(pixels, self._transform, self.device)}
            else:
                inputs = self._processor(list(pixels), return_tensors="pt")
            placed = _placed(inputs, self._network)
            if self.fused is not None:
                return _on_cpu(self.fused(placed["pixel_values"]))
            return _features(self._network.get_image_features(**placed))


def _new_stream(device: "torch.device") -> "torch.cuda.Stream | None":
    """Return a CUDA stream, so that a thread's work runs beside that of other threads.

    A thread keeps it: PyTorch reuses memory within a stream only.
    """
    import torch

    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _placed(inputs: "Mapping[str, torch.Tensor]", network: Any) -> "dict[str, torch.Tensor]":
    """Move inputs to the device of the network, floating-point ones also to its number format."""
    return {
        name: tensor.to(network.device, network.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }


def _tokens_per_image(config: Any) -> int:
    """Return the approximate number of tokens of an image; a guess for convolutional towers."""
    edge, patch = getattr(config, "image_size", 224), getattr(config, "patch_size", 32)
    return int((edge // patch) ** 2)


def _features(output: Any) -> npt.NDArray[np.float32]:
    return _on_cpu(output.pooler_output)


def _on_cpu(features: "torch.Tensor") -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = features.float().cpu().numpy()
    return array


def _token_limit(tokenizer: Any, config: Any) -> int:
    """Return the greatest number of tokens of a text, special tokens included."""
    positions: int = config.max_position_embeddings
    if config.model_type == "altclip_text_model":  # RoBERTa counts positions from there on
        positions -= config.pad_token_id + 1
    return min(positions, int(tokenizer.model_max_length))
