"""A small corpus of rated films, and a small M6 network over its texts."""

import functools
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import UserTime
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.model.config import DecoderConfig
from plum_jax.ranking.labels import Label
from plum_jax.systems.m6rec.network import Heads, M6Network
from plum_jax.systems.m6rec.rows import Tokens
from plum_jax.systems.m6rec.trunk import Form
from plum_jax.systems.m6rec.writer import Texts, lines_for_pieces

NANO = DecoderConfig(num_layers=2, d_model=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=48, scan_layers=False)
TEXTS = Texts(category="genres", history_length=3)
WORDS = ["Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord"]


def corpus(num_users=6, num_events=10):
    """Ratings of random films, several users at equal times."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(num_users, dtype=np.int32), num_events)
    return Corpus(
        name="films",
        items=pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(6)],
                "title": [f"The {word}" for word in WORDS],
                "genres": [["Drama"], ["Drama", "War"], ["War"], [], ["Comedy", "Drama", "War"], ["Comedy"]],
            }
        ),
        users=pl.DataFrame(
            {"user_id": [f"u{u}" for u in range(num_users)], "gender": ["F", "M", None] * (num_users // 3)}
        ),
        events=pl.DataFrame(
            {
                "user": user,
                "item": random.integers(0, 6, len(user)).astype(np.int32),
                "time": np.tile(3600 * np.arange(num_events) // 2, num_users),
                "rating": random.integers(1, 6, len(user)).astype(np.float32),
            }
        ).with_columns(pl.col("rating").cast(pl.Float32)),
        text_fields=("title",),
        item_features=("genres",),
        user_features=("gender",),
    )


def writer_of(data=None, texts=TEXTS):
    """Over the corpus's split by each user's time, ratings of 4 and more being likes."""
    return texts.writer(Label().of(UserTime(test=0.2, validation=0.2).split(corpus() if data is None else data)))


@functools.cache
def tokens_of(length=96):
    """Pieces of the corpus's texts."""
    writer = writer_of()
    told = [writer.outcome(row, 1.0) for row in range(writer.corpus.num_events)]
    start = LanguageModel(decoder=NANO, num_pieces=400).start(lines_for_pieces(told), tempfile.mkdtemp())
    return Tokens(start.text, start.vocab_size, length)


@functools.cache
def rows():
    """Candidates with histories of all lengths."""
    writer = writer_of()
    return tokens_of().rows([writer.offer(row) for row in (0, 1, 2, 5, 19, 37)])


def network_and_params(form=Form(), heads=Heads(), config=NANO, seed=0):  # noqa: B008
    """With random parameters where an initialiser has zeros, too."""
    network = M6Network(config, tokens_of().vocab_size, form, heads)
    shapes = nn.unbox(jax.eval_shape(network.init, jax.random.key(seed), dict(rows().columns()))["params"])
    random = np.random.default_rng(seed)

    def made(keys, leaf):
        drawn = 0.1 * random.normal(size=leaf.shape).astype(np.float32)
        return jnp.asarray(drawn + 1 if keys[-1].key == "scale" else drawn)

    return network, jax.tree_util.tree_map_with_path(made, shapes)


@functools.partial(jax.jit, static_argnums=(0, 3))
def answer(network, params, columns, method="__call__"):
    """Compiled as a whole: that takes less time than its operations one by one."""
    return network.apply({"params": params}, columns, method=method)


def logits(network, params, some=None):
    """Of each exit, [B, K, C]."""
    return answer(network, params, dict((some or rows()).columns()))
