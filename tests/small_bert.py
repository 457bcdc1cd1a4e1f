"""A small random BERT as a directory, and its states by the formulas, in NumPy and in the file's own names."""

import json
import math
import pathlib

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import models, normalizers, pre_tokenizers

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FIELDS = {
    "model_type": "bert",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-3,  # large enough to be seen
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "pad_token_id": 0,
}


def write(directory: pathlib.Path, words=("red", "lamp", "##s", "drill"), change=lambda tensors: tensors, **fields):
    """config.json, model.safetensors, tokenizer.json; `change` makes other tensors of them."""
    pieces = (*MARKS, *words)
    said = {**FIELDS, "vocab_size": len(pieces), **fields}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(said))
    save_file(change(tensors_of(said)), str(directory / "model.safetensors"), metadata={"format": "pt"})
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = tokenizers.Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(MARKS))
    made.save(str(directory / "tokenizer.json"))
    return directory


def tensors_of(fields):
    """Random ones of every name, as sentence-transformers writes them."""
    d, f = fields["hidden_size"], fields["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (fields["vocab_size"], d),
        "embeddings.position_embeddings.weight": (fields["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (fields["type_vocab_size"], d),
        **dict.fromkeys(("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"), (d,)),
    }
    products = {"attention.self.query": (d, d), "attention.self.key": (d, d), "attention.self.value": (d, d)}
    products |= {"attention.output.dense": (d, d), "intermediate.dense": (f, d), "output.dense": (d, f)}
    for layer in range(fields["num_hidden_layers"]):
        for name, shape in products.items():
            shapes |= {f"encoder.layer.{layer}.{name}.weight": shape, f"encoder.layer.{layer}.{name}.bias": shape[:1]}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{layer}.{norm}.{kind}": (d,) for kind in ("weight", "bias")}
    random = np.random.default_rng(0)
    return {name: random.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def states(fields, tensors, tokens, types):
    """float64 [layers + 1, T, D] of one text int [T] without filling: the sum of three tables, then the layers."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + fields["layer_norm_eps"])
        return centred / deviation * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    x = t["embeddings.word_embeddings.weight"][tokens] + t["embeddings.token_type_embeddings.weight"][types]
    x = norm(x + t["embeddings.position_embeddings.weight"][: len(tokens)], "embeddings.LayerNorm")
    found, heads = [x], fields["num_attention_heads"]
    for layer in range(fields["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{name}.attention.self.{which}").reshape(len(tokens), heads, -1)
            for which in ("query", "key", "value")
        )
        attended = []
        for head in range(heads):
            scores = query[:, head] @ key[:, head].T / math.sqrt(query.shape[-1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            attended.append(weights / weights.sum(-1, keepdims=True) @ value[:, head])
        x = norm(
            x + linear(np.concatenate(attended, -1), f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        hidden = linear(x, f"{name}.intermediate.dense")
        hidden = hidden * np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))(hidden)
        x = norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        found.append(x)
    return np.stack(found)
