"""How long from Enter to the table? `retrieval query "..."` and `--help` as whole processes.

Two models: "offline", and a checkpoint of CLIP ViT-L/14's text tower with random weights (the real
shape and file format: 12 layers of 768, a vocabulary of 49,408), each with an index of random
vectors. The peer encodes the same text in a fresh process with transformers. Processor time is what
elapses on a machine that has nothing else to do: all of it is one thread.

    python benchmarks/startup.py
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.encoders.load import load_text_encoder_of
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline.vectors import normalise

TEXT = "a dog on grass"
WIDTH, LAYERS, HEADS, TOKENS, LIMIT = 768, 12, 12, 49_408, 77
START, END = TOKENS - 2, TOKENS - 1

# What happens in `retrieval query`, step by step, in processor time.
STEPS = """
import sys, time
laps = [0, time.process_time()]
from retrieval_pipeline.cli import main as cli
laps.append(time.process_time())
from retrieval_pipeline.config.settings import load_settings
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.cli.answer_text import answer_text
laps.append(time.process_time())
searcher = Searcher.open(load_settings())
laps.append(time.process_time())
searcher.warm_up()
laps.append(time.process_time())
answer = searcher.answer(Query(text=sys.argv[1]))
laps.append(time.process_time())
answer_text(answer, heading=False)
laps.append(time.process_time())
assert not {"torch", "transformers"} & set(sys.modules)
print(*(1000 * (after - before) for before, after in zip(laps, laps[1:])))
"""
NAMES = (
    "start Python",
    "import the command line",
    "import the search",
    "open the index",
    "load the text encoder and use it once",
    "answer",
    "write the table",
)
TRANSFORMERS = """
import sys, torch
from transformers import AutoTokenizer, CLIPTextModelWithProjection
model = CLIPTextModelWithProjection.from_pretrained(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
with torch.inference_mode():
    model(**tokenizer([sys.argv[1]], return_tensors="pt")).text_embeds.numpy()
"""


def make_checkpoint(directory):
    """Write a checkpoint with a random text tower; the vision tower's weights are not needed."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {
        "text_model.embeddings.token_embedding.weight": (TOKENS, WIDTH),
        "text_model.embeddings.position_embedding.weight": (LIMIT, WIDTH),
        "text_projection.weight": (WIDTH, WIDTH),
    }
    norms = ["text_model.final_layer_norm"]
    for layer in range(LAYERS):
        prefix = f"text_model.encoder.layers.{layer}"
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        linears = {f"self_attn.{role}_proj": (WIDTH, WIDTH) for role in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, shape in linears.items():
            weights[f"{prefix}.{name}.weight"] = shape
            weights[f"{prefix}.{name}.bias"] = shape[:1]
    tensors = {
        name: 0.02 * rng.standard_normal(shape, np.float32) for name, shape in weights.items()
    }
    for norm in norms:
        tensors[f"{norm}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{norm}.bias"] = np.zeros(WIDTH, np.float32)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    text = {
        "model_type": "clip_text_model",
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": TOKENS,
        "projection_dim": WIDTH,
        "max_position_embeddings": LIMIT,
        "bos_token_id": START,
        "eos_token_id": END,
    }
    vision = {
        "image_size": 224,
        "patch_size": 14,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    }
    config = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": WIDTH,
        "text_config": text,
        "vision_config": vision,
    }
    (directory / "config.json").write_text(json.dumps(config))
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    make_tokenizer().save(str(directory / "tokenizer.json"))
    names = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LIMIT, **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def make_tokenizer():
    """Return a byte-pair tokenizer with as many tokens and merges as CLIP's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    known, merges = set(tokens), []
    for left in list(tokens):
        for right in letters:
            pair = left + right
            if len(tokens) == TOKENS - 2:
                break
            if left.endswith("</w>") or pair in known:
                continue
            known.add(pair)
            tokens.append(pair)
            merges.append((left, right))
    tokens += [f"<{number}>" for number in range(TOKENS - 2 - len(tokens))]
    tokens += ["<start>", "<end>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<end>", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    return tokenizer


def make_library(directory, model, images):
    """Write settings for `model` and an index of so many random vectors in its space."""
    (directory / "pictures").mkdir(parents=True)
    file = directory / "retrieval.toml"
    sources = [("pictures", directory / "pictures")]
    file.write_text(settings_text(sources, model=str(model), home="home"))
    settings = load_settings(file)
    store, space = Store(settings.home), describe_encoder(settings).space
    ids = [f"{number:032x}" for number in range(images)]
    files = {
        "path": [f"{number}.jpg" for number in range(images)],
        "size": [1] * images,
        "mtime_ns": [1] * images,
        "content_id": ids,
        "status": ["ok"] * images,
        "error": [None] * images,
    }
    write_table(store.manifest("pictures"), pa.table(files, schema=MANIFEST))
    vectors = normalise(np.random.default_rng(1).standard_normal((images, space.dim), np.float32))
    columns = [
        pa.array(ids),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), space.dim),
        pa.array([640] * images, pa.int32()),
        pa.array([480] * images, pa.int32()),
        pa.array(["JPEG"] * images),
    ]
    table = pa.table(columns, schema=embedding_schema(space.dim))
    write_table(store.next_part(space, "pictures"), table, space)
    build_index(store, space, ["pictures"], encode_texts=load_text_encoder_of(space))


def run(directory, *arguments):
    """Return the seconds that a process took, those of processor time, and what it printed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, done.stdout


def row(name, runs, directory, *arguments):
    """Print the fastest and the median time of a process, and its median processor time."""
    seconds, used = zip(*(run(directory, *arguments)[:2] for _ in range(runs)), strict=True)
    cells = (min(seconds), statistics.median(seconds), statistics.median(used))
    print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="in each index")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        checkpoint = root / "checkpoint"
        make_checkpoint(checkpoint)
        libraries = {"offline": "offline", "CLIP ViT-L/14": checkpoint}
        for name, model in libraries.items():
            make_library(root / name.replace("/", "-"), model, options.images)
        print("| whole process, seconds | fastest | median | processor |\n|---|--:|--:|--:|")
        row("Python alone", options.runs, root, "-c", "pass")
        row("`retrieval --help`", options.runs, root, "-m", "retrieval_pipeline", "--help")
        steps = {}
        for name in libraries:
            directory = root / name.replace("/", "-")
            query = ["-m", "retrieval_pipeline", "query", TEXT]
            row(f"`retrieval query`, {name}", options.runs, directory, *query)
            rows = [run(directory, "-c", STEPS, TEXT)[2].split() for _ in range(options.runs)]
            steps[name] = np.min(np.array(rows, dtype=float), axis=0)
        runs = max(options.runs // 2, 1)
        row("the text alone, by transformers", runs, root, "-c", TRANSFORMERS, TEXT, checkpoint)
        print()
        print(f"| step, processor ms (least) | {' | '.join(libraries)} |")
        print(f"|---|{'--:|' * len(libraries)}")
        for number, step in enumerate(NAMES):
            cells = " | ".join(f"{steps[name][number]:.0f}" for name in libraries)
            print(f"| {step} | {cells} |")


if __name__ == "__main__":
    main()
