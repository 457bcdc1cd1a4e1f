"""One published model, ours against `transformers`: python benchmarks/pretrained.py PATH [--text TEXT] [--tokens 16]

PATH is whatever `read_pretrained` reads. `transformers` reads the same file itself where it can (directories and GGUF);
for every kind it reads our export, too. Prints the largest difference of logits, time and memory of reading, and the
greedy continuation of the text. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import resource
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers

from plum_jax.interop.pretrained import Pretrained, export_hugging_face, read_pretrained
from plum_jax.model.decoder import Decoder


def main() -> None:
    """Reads, continues, exports, compares."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=pathlib.Path)
    arguments.add_argument("--text", default="Once upon a time, there was")
    arguments.add_argument("--tokens", type=int, default=16, help="how many to continue by")
    given = arguments.parse_args()

    before, start = _peak_bytes(), time.perf_counter()
    read = read_pretrained(given.path)
    seconds, peak = time.perf_counter() - start, _peak_bytes() - before
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(read.params))
    print(f"{read.family}: {size // 4:,} parameters, {size / 1e6:,.0f} MB in float32")
    print(f"read in {seconds:.1f} s; memory grew by {peak / size:.2f} copies at most")

    prompt = _encode(read, given.text)
    tokens, ours = _continue(read, prompt, given.tokens)
    print(f"continued: {_decode(read, tokens)!r}")
    with tempfile.TemporaryDirectory() as directory:
        export_hugging_face(pathlib.Path(directory) / "out", read.config, read.params)
        _compare("transformers reads our export", ours, _logits(tokens, f"{directory}/out"))
    if given.path.suffix == ".gguf" and importlib.util.find_spec("accelerate") is None:
        print("transformers reads the file: not compared, it wants the package accelerate for that")
    elif given.path.suffix == ".gguf":
        _compare("transformers reads the file", ours, _logits(tokens, given.path.parent, gguf_file=given.path.name))
    elif given.path.is_dir():
        _compare("transformers reads the directory", ours, _logits(tokens, given.path))


def _compare(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    difference, same = np.abs(ours - theirs).max(), (ours.argmax(-1) == theirs.argmax(-1)).mean()
    print(f"{what}: largest difference {difference:.1e} of logits up to {np.abs(theirs).max():.1f}, ", end="")
    print(f"same best token at {same:.0%} of {len(ours)} places")


def _continue(read: Pretrained, prompt: list[int], count: int) -> tuple[list[int], np.ndarray]:
    """The prompt with the best tokens behind it, and the logits `[T, V]` at every place."""
    length = len(prompt) + count
    decoder = Decoder(read.config, read.vocab_size)
    mask, positions = jnp.tril(jnp.ones((1, length, length), bool)), jnp.arange(length)[None]
    forward = jax.jit(lambda params, row: decoder.apply({"params": params}, row, positions, mask)[0][0])
    params = jax.tree.map(jnp.asarray, read.params)
    row = np.zeros((1, length), np.int32)
    row[0, : len(prompt)] = prompt
    for place in range(len(prompt), length):
        row[0, place] = forward(params, row)[place - 1].argmax()
    return row[0].tolist(), np.asarray(forward(params, row))


def _logits(tokens: list[int], directory: pathlib.Path | str, **options: str) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, **options
    )
    with torch.no_grad():
        return model.eval()(torch.as_tensor([tokens])).logits[0].numpy()


def _encode(read: Pretrained, text: str) -> list[int]:
    if "tokenizer.json" in read.tokenizer_files:
        return tokenizers.Tokenizer.from_str(read.tokenizer_files["tokenizer.json"].decode()).encode(text).ids
    pieces = sentencepiece.SentencePieceProcessor(model_proto=read.tokenizer_files["tokenizer.model"])
    return [pieces.bos_id(), *pieces.encode(text)]


def _decode(read: Pretrained, tokens: list[int]) -> str:
    if "tokenizer.json" in read.tokenizer_files:
        return tokenizers.Tokenizer.from_str(read.tokenizer_files["tokenizer.json"].decode()).decode(tokens)
    return sentencepiece.SentencePieceProcessor(model_proto=read.tokenizer_files["tokenizer.model"]).decode(tokens)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
