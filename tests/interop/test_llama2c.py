"""llama2.c's files against its forward pass written out in NumPy, token by token as run.c has it."""

import struct

import jax
import numpy as np
import pytest
import sentencepiece
from published_families import our_logits

from plum_jax.interop.pretrained import InteropError, read_pretrained

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, LENGTH = 12, 20, 2, 3, 1, 31, 16


class Reference:
    """The arrays of a legacy file in its order, and run.c's `forward`."""

    def __init__(self, path):
        data = path.read_bytes()
        dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack_from("<7i", data)
        self.heads, self.kv_heads, self.layers, self.dim = heads, kv_heads, layers, dim
        self.at, self.floats = 0, np.frombuffer(data, "<f4", offset=28).astype(np.float64)
        kv_dim = dim // heads * kv_heads
        self.embedding = self.take(abs(vocabulary), dim)
        self.attention_norm = self.take(layers, dim)
        self.wq, self.wk = self.take(layers, dim, dim), self.take(layers, kv_dim, dim)
        self.wv, self.wo = self.take(layers, kv_dim, dim), self.take(layers, dim, dim)
        self.mlp_norm = self.take(layers, dim)
        self.w1, self.w2 = self.take(layers, hidden, dim), self.take(layers, dim, hidden)
        self.w3, self.norm = self.take(layers, hidden, dim), self.take(dim)
        self.cosine, self.sine = (self.take(length, dim // heads // 2) for _ in range(2))
        self.head = self.embedding if vocabulary > 0 else self.take(-vocabulary, dim)
        assert self.at == len(self.floats)

    def take(self, *shape):
        taken = self.floats[self.at : self.at + np.prod(shape)].reshape(shape)
        self.at += taken.size
        return taken

    def rotated(self, x, position):
        """Neighbours 2i and 2i + 1 are the real and the imaginary part of one number."""
        pairs = x.reshape(-1, self.dim // self.heads // 2, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * (self.cosine[position] + 1j * self.sine[position])
        return np.stack([turned.real, turned.imag], axis=-1).reshape(pairs.shape[0], -1)

    def logits(self, tokens):
        def normalised(x, weight):
            return weight * x / np.sqrt(np.mean(x * x) + 1e-5)

        width = self.dim // self.heads
        keys, values, rows = [[] for _ in range(self.layers)], [[] for _ in range(self.layers)], []
        for position, token in enumerate(tokens):
            x = self.embedding[token]
            for layer in range(self.layers):
                h = normalised(x, self.attention_norm[layer])
                query = self.rotated(self.wq[layer] @ h, position)
                keys[layer].append(self.rotated(self.wk[layer] @ h, position))
                values[layer].append((self.wv[layer] @ h).reshape(self.kv_heads, width))
                attended = []
                for head in range(self.heads):
                    shared = head // (self.heads // self.kv_heads)
                    scores = np.array([query[head] @ key[shared] for key in keys[layer]]) / np.sqrt(width)
                    weights = np.exp(scores - scores.max())
                    seen = np.array([value[shared] for value in values[layer]])
                    attended.append(weights / weights.sum() @ seen)
                x = x + self.wo[layer] @ np.concatenate(attended)
                h = normalised(x, self.mlp_norm[layer])
                gate = self.w1[layer] @ h
                x = x + self.w2[layer] @ (gate / (1 + np.exp(-gate)) * (self.w3[layer] @ h))
            rows.append(self.head @ normalised(x, self.norm))
        return np.array(rows)


def random_legacy_file(path, tied):
    random = np.random.default_rng(0)
    kv_dim, half = DIM // HEADS * KV_HEADS, DIM // HEADS // 2
    table = VOCABULARY * DIM
    layer = 2 * DIM * DIM + 2 * kv_dim * DIM + 3 * HIDDEN * DIM + 2 * DIM
    angles = np.arange(LENGTH)[:, None] * 10_000.0 ** -(np.arange(half) / half)
    weights = [0.3 * random.standard_normal(table + LAYERS * layer + DIM), np.cos(angles), np.sin(angles)]
    if not tied:
        weights.append(random.standard_normal(table))
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY if tied else -VOCABULARY, LENGTH)
    path.write_bytes(header + b"".join(np.asarray(w, "<f4").tobytes() for w in weights))
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_the_forward_pass_written_out(tied, tmp_path):
    path = random_legacy_file(tmp_path / "model.bin", tied)
    tokens = np.random.default_rng(1).integers(VOCABULARY, size=(1, 10))
    read = read_pretrained(path)
    assert read.config.tied_embeddings == tied and read.max_length == LENGTH
    np.testing.assert_allclose(
        our_logits(read.config, read.params, tokens)[0], Reference(path).logits(tokens[0]), atol=1e-5
    )


def test_version_1_is_the_same_weights_in_another_order(tmp_path):
    legacy = random_legacy_file(tmp_path / "legacy.bin", tied=True)
    w = Reference(legacy)
    order = [w.attention_norm, w.mlp_norm, w.norm, w.embedding, w.wq, w.wk, w.wv, w.wo, w.w1, w.w2, w.w3]
    header = struct.pack("<Ii7iB", 0x616B3432, 1, DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, LENGTH, 1)
    body = b"".join(np.asarray(weights, "<f4").tobytes() for weights in order)
    (tmp_path / "new.bin").write_bytes(header.ljust(256, b"\0") + body)
    old, new = read_pretrained(legacy), read_pretrained(tmp_path / "new.bin")
    assert new.config == old.config
    jax.tree.map(np.testing.assert_array_equal, new.params, old.params)


def test_other_versions_and_files_of_another_length_are_refused(tmp_path):
    path = random_legacy_file(tmp_path / "model.bin", tied=True)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InteropError, match="expected [0-9]+ bytes by its header"):
        read_pretrained(path)
    path.write_bytes(struct.pack("<Ii", 0x616B3432, 2).ljust(256, b"\0"))
    with pytest.raises(InteropError, match="llama2.c version 2 is not read"):
        read_pretrained(path)
    path.write_bytes(b"GIF89a is no model, but long enough for a header")
    with pytest.raises(InteropError, match="bytes by its header|its header reads"):
        read_pretrained(path)


def test_the_tinystories_model_tells_a_story(shared_data):
    """The published stories260K: logits of run.c's formulas, and its tokenizer's text, greedily continued."""
    path = shared_data / "weights" / "stories260K.bin"
    read = read_pretrained(path)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=read.tokenizer_files["tokenizer.model"])
    prompt = [1, *pieces.encode("Once upon a time")]
    assert len(prompt) < 12, "llama2.c's vocabulary has pieces for this text"
    tokens = list(prompt)
    reference = Reference(path)
    while len(tokens) < 32:
        tokens.append(int(np.argmax(reference.logits(tokens)[-1])))
    ours = our_logits(read.config, read.params, np.array([tokens]))[0]
    np.testing.assert_allclose(ours, reference.logits(tokens), atol=1e-3)
    assert ours.argmax(axis=-1)[len(prompt) - 1 : -1].tolist() == tokens[len(prompt) :]
    assert pieces.decode(tokens[1:]).startswith("Once upon a time, there was a")
