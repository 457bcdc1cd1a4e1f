"""Losses by kind of token: parts of the objective's own loss, by a loop over all tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_vocabulary import vocabulary_of

from plum_jax.feeds import token_records
from plum_jax.feeds.batches import TokenBatches
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextToken, NextTokenLoss
from plum_jax.semantic_ids.field_tokens import Buckets
from plum_jax.systems.generative.token_losses import TokenLosses
from plum_jax.text.sentence_piece import train_sentencepiece

SIZES = (3, 4)
BATCH = {"batch_size": 3, "length": 24}


@pytest.fixture(scope="module")
def losses(tmp_path_factory) -> tuple[TokenLosses, dict]:
    directory = tmp_path_factory.mktemp("losses")
    train_sentencepiece(["a few words", "for a small model"], 270, directory / "pieces.model")
    vocabulary = vocabulary_of(directory / "pieces.model", SIZES, field_tokens=(Buckets("rating", (2.5,)),))
    random = np.random.default_rng(0)

    def records(count: int, first: int):
        for _ in range(count):
            tokens = random.integers(first, vocabulary.vocab_size, random.integers(3, 20))
            tokens[-1] = vocabulary.eos_id
            yield tokens, random.choice([0.0, 0.5, 1.0], len(tokens))

    for name, first in (("words", 3), ("codes", vocabulary.num_pieces)):
        token_records.write_task(directory / name, records(9, first), name=name, config=name, inputs={})
    token_records.write_manifest(directory, rates={"words": 1.0, "codes": 2.0}, config=None, inputs={})
    sizes = DecoderConfig(num_layers=1, d_model=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8)
    decoder = Decoder(sizes, vocabulary.vocab_size)
    one = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(decoder.init(jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool)))["params"]
    return TokenLosses(decoder, vocabulary, directory, **BATCH, batches=5), params


def kind_of(vocabulary, token: int) -> str:
    name = vocabulary.token_name(token)
    if token in (vocabulary.eos_id, vocabulary.pad_id, vocabulary.unk_id) or name in vocabulary.control_tokens:
        return "control"
    if vocabulary.is_sid(token):
        return f"sid_{'AB'.index(name[1]) + 1}"
    return "field" if token >= vocabulary.num_pieces else "text"


def test_the_kinds_are_a_partition_and_their_sums_add_up_to_the_whole(losses):
    judge, params = losses
    whole = {}
    objective = NextTokenLoss(judge.decoder, NextToken())
    for task in ("words", "codes"):
        feed = TokenBatches(judge.records, **BATCH, rates={task: 1.0}, num_epochs=1)
        found = [objective(params, batch, None)[:2] for batch in feed.make_iterator()]
        whole[task] = np.sum(found, axis=0)
    sums = judge.sums(params)
    assert {*sums} == {"words", "codes"}
    for task, (loss, weight) in whole.items():
        np.testing.assert_allclose(sums[task].sum(axis=1), [loss, weight], rtol=1e-5)
    row = judge(params)
    kinds = [name.removeprefix("share_") for name in row if name.startswith("share_")]
    assert set(kinds) == {"text", "control", "field", "sid_1", "sid_2"}
    assert sum(row[f"share_{kind}"] * row[f"loss_{kind}"] for kind in kinds) == pytest.approx(row["loss"])
    assert row["loss_task_codes"] == pytest.approx(whole["codes"][0] / whole["codes"][1], rel=1e-5)


def test_a_kind_has_the_tokens_that_its_name_says(losses):
    judge, params = losses
    weights = dict.fromkeys(judge.kinds, 0.0)
    for task in token_records.read_tasks(judge.records):
        feed = TokenBatches(judge.records, **BATCH, rates={task.name: 1.0}, num_epochs=1)
        for batch in feed.make_iterator():
            pairs = zip(batch["decoder_target_tokens"].flat, batch["decoder_loss_weights"].flat, strict=True)
            for token, weight in pairs:
                weights[kind_of(judge.vocabulary, int(token))] += float(weight)
    found = np.sum([*judge.sums(params).values()], axis=0)[1]
    np.testing.assert_allclose(found, [weights[kind] for kind in judge.kinds])


def test_a_kind_without_tokens_has_no_figure_and_few_records_still_judge(losses):
    judge, params = losses
    held_out = TokenLosses(judge.decoder, judge.vocabulary, judge.records, **BATCH, share=(0.99, 1.0))
    sums = held_out.sums(params)
    assert all(total[1].sum() > 0 for total in sums.values())
    row = held_out(params)
    empty = [kind for kind, weight in zip(judge.kinds, np.sum([*sums.values()], axis=0)[1], strict=True) if not weight]
    assert not any(f"loss_{kind}" in row for kind in empty)
