"""Pre-training begins with a language model's weights; likelihoods and continuations are the network's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_m6 import NANO, TEXTS, answer, corpus, network_and_params, tokens_of, writer_of
from stages_of_split import stages_of_split

from plum_jax.corpus.splits import UserTime
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.ranking.labels import Label
from plum_jax.systems.m6rec.continuing import Continuing
from plum_jax.systems.m6rec.network import M6Network
from plum_jax.systems.m6rec.pretraining import Pretrained, Pretraining
from plum_jax.systems.m6rec.retriever import M6Retriever, spread
from plum_jax.systems.m6rec.rows import CANDIDATE
from plum_jax.systems.m6rec.writer import Text
from plum_jax.systems.m6rec.zero_shot import FittedZeroShot, mean_log_likelihoods
from plum_jax.training.training_config import TrainingConfig


@pytest.fixture(scope="module")
def trunk():
    """Of random weights, as if they were another program's."""
    network, params = network_and_params()
    table = {name: params["decoder"][name] for name in ("embedding", "transformer")}
    start = LanguageModelStart(tokens_of().pieces, NANO, network.vocab_size, table)
    return Pretrained(Pretraining(texts=TEXTS), start, tokens_of(), writer_of(), None)


def test_a_trunk_begins_with_the_weights_of_the_language_model(trunk):
    written_by = trunk.written_by["decoder"]
    for name, tree in trunk.start.params.items():
        equal = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), tree, written_by[name])
        assert jax.tree.all(equal), name
    assert written_by["special"].shape == (5, NANO.d_model)


def test_zero_shot_compares_mean_log_likelihoods_of_two_endings(trunk):
    rows = np.array([3, 17, 36])
    likelihoods = []
    for label in (1.0, 0.0):
        some = trunk.tokens.rows([trunk.writer.outcome(int(row), label) for row in rows])
        logits = answer(trunk.network, trunk.written_by, dict(some.columns()), "language")
        log_probs = np.asarray(jax.nn.log_softmax(logits))
        of_rows = []
        for row in range(len(rows)):
            written = [
                log_probs[row, place - 1, some.tokens[row, place]]
                for place in range(1, some.tokens.shape[1])
                if some.side[row, place] == some.side[row, place - 1] == CANDIDATE
            ]
            of_rows.append(np.mean(written))
        likelihoods.append(of_rows)
        np.testing.assert_allclose(mean_log_likelihoods(trunk.network, trunk.written_by, some), of_rows, atol=1e-4)
    np.testing.assert_allclose(FittedZeroShot(trunk).scores(rows), np.subtract(*likelihoods), atol=2e-4)


def test_the_likeliest_words_are_written_one_after_the_other(trunk):
    texts = [Text(trunk.writer.user(7), (trunk.writer.said.wording.offer,)), Text(("USER: Hello.",), ("SYSTEM:",))]
    found = Continuing(max_tokens=3).write(trunk, texts)
    for text, written in zip(texts, found, strict=True):
        row = trunk.tokens.rows([text])
        count, ids = int((row.side > 0).sum()) - 1, []  # without [EOS]
        row.tokens[0, count], row.side[0, count] = 0, 0
        for place in range(count, count + 3):
            logits = answer(trunk.network, trunk.written_by, dict(row.columns()), "language")[0, place - 1]
            allowed = [*range(trunk.network.vocab_size), trunk.tokens.special("end")]
            ids.append(allowed[int(jnp.argmax(logits[np.array(allowed)]))])
            if ids[-1] == trunk.tokens.special("end"):
                break
            row.tokens[0, place], row.side[0, place] = ids[-1], CANDIDATE
        assert written == trunk.tokens.pieces.decode([i for i in ids if i < trunk.tokens.vocab_size])
    drawn = Continuing(max_tokens=3, temperature=1.0, seed=1)
    assert drawn.write(trunk, texts) == drawn.write(trunk, texts) != found
    with pytest.raises(ValueError, match="0 < top_p <= 1"):
        Continuing(top_p=0.0)


def stages_of(directory):
    return stages_of_split(UserTime(test=0.2, validation=0.2).split(corpus()), directory)


def test_users_and_items_are_ranked_by_products_of_their_vectors(tmp_path):
    stages = stages_of(tmp_path)
    said = Pretraining(LanguageModel(decoder=NANO, num_pieces=400), texts=TEXTS, length=96, examples=0)
    training = TrainingConfig(steps=2, tensorboard=False)
    retriever = M6Retriever(said, label=Label(), training=training, epochs=None, batch_size=8, examples=16)
    fitted = retriever.fit(stages, "m6")
    test = stages.split.evaluation("test")
    ranking = fitted.rank(test, 6)
    assert sorted(ranking.lists.items[0].tolist()) == list(range(6))  # all of them, whether anybody took them or not
    arrays = retriever.arrays(fitted.trunk)
    assert len(arrays["user_tokens"]) == 16 and (arrays["user_side"].max(axis=1) == 1).all()
    share = stages.split.item_popularity / stages.split.item_popularity.sum()
    np.testing.assert_allclose(np.exp(arrays["target_log_q"]), share[arrays["decoder_target_tokens"]], rtol=1e-5)
    users = answer(
        fitted.network, fitted.params, dict(retriever.users(fitted.trunk, test.target_event).columns()), "users"
    )
    items = answer(fitted.network, fitted.params, dict(retriever.items(fitted.trunk).columns()), "items")
    best = np.argmax(np.asarray(users) @ np.asarray(items).T, axis=1)
    np.testing.assert_array_equal(ranking.lists.items[:, 0], best)


def test_projections_begin_with_what_tells_texts_apart(tmp_path):
    stages = stages_of(tmp_path)
    said = Pretraining(LanguageModel(decoder=NANO, num_pieces=400), texts=TEXTS, length=96, examples=0)
    retriever = M6Retriever(said, label=Label(), batch_size=8, examples=16)
    trunk = said.fit(stages, Label().of(stages.split))
    network = M6Network(trunk.start.config, trunk.start.vocab_size, said.form, retriever.heads)
    arrays = retriever.arrays(trunk)
    batch = {name: values[:8] for name, values in arrays.items()}
    params = nn.unbox(spread(network, trunk.initial(network, "towers", batch), arrays).make(jax.random.key(0)))
    projected = []
    for side in ("user", "item"):
        rows = {name: arrays[f"{side}_{name}"] for name in ("tokens", "side", "segment")}
        states = np.asarray(answer(network, params, rows, "ending"))
        similar = states / np.linalg.norm(states, axis=1, keepdims=True)
        assert (similar @ similar.T).mean() > 0.3  # by themselves they are alike
        weights = params[f"{side}_projection"]
        projected.append(states @ weights["kernel"] + weights["bias"])
        np.testing.assert_allclose(projected[-1].mean(axis=0), 0, atol=1e-3)
    # Equal variance in every direction that there is: products of the projected are those of a projection matrix.
    products = np.concatenate(projected) @ np.concatenate(projected).T / 32
    clear = np.linalg.eigvalsh(products)
    clear = clear[clear > 0.5]
    np.testing.assert_allclose(clear, 1, atol=1e-3)
    assert len(clear) > 10
