"""What follows a prompt: through the cache as without one, by brute force on a tiny vocabulary, and always an item."""

import itertools

import numpy as np
import pytest

from plum_jax.language.generation import Generation, LanguageModel
from plum_jax.language.prompts import PromptError
from plum_jax.ragged import from_rows
from plum_jax.retrieval.recommend import Recommender

PROMPTS = [
    "The film {item:i2} is about",
    "{item:amber night} is night. {item:birch road} is",
    "<history> {sid:A2} road {item:i5|1}",
    "it",
    "After {item:i0} watched {sid} and",
]


def by_the_book(world, prompt, generation):
    """Greedily, with a full pass for every token: tokens, log-probability."""
    grammar, vocabulary = world.model.grammar, world.model.vocabulary
    tokens, score, place = list(prompt.lead), 0.0, None
    script, free = list(prompt.tokens[len(prompt.lead) :]), generation.max_tokens
    while script or place is not None or free > 0:
        if script and script[0] >= 0 and place is None:
            tokens.append(script.pop(0))
            continue
        asked = bool(script)
        if place is not None:
            allowed = grammar.codes(place)
        else:
            allowed = grammar.codes(grammar.root) if asked else grammar.anything
        log_probs = world.log_probs(tokens)
        token = int(np.where(allowed, log_probs, -np.inf).argmax())
        score += float(log_probs[token])
        place = grammar.after(place, token)
        if asked and place is None:
            script.pop(0)
        free -= not asked
        if token == vocabulary.eos_id:
            break
        tokens.append(token)
    return tuple(tokens[len(prompt.lead) :]), score


def test_through_the_cache_as_with_a_full_pass_for_every_token(world):
    prompts = [world.reader.read(text) for text in PROMPTS]
    generation = Generation(max_tokens=9)
    found = world.model.generate(prompts, generation)
    for prompt, (continuation,) in zip(prompts, found, strict=True):
        tokens, score = by_the_book(world, prompt, generation)
        assert continuation.tokens == tokens, prompt.text
        assert continuation.log_prob == pytest.approx(score, abs=1e-3)
        assert continuation.text == world.model.vocabulary.decode(tokens)
    # Neither the batch nor what else is asked matters.
    alone = LanguageModel(world.model.decoder, world.model.params, world.model.vocabulary, world.model.table, 1)
    assert [one.tokens for (one,) in alone.generate(prompts[1:3], generation)] == [
        found[1][0].tokens,
        found[2][0].tokens,
    ]


def test_the_nucleus_is_that_of_a_loop_over_the_vocabulary(world):
    prompt, draws = world.reader.read("The film {item:i2} is"), 600
    generation = Generation(max_tokens=1, temperature=5.0, top_p=0.6, num_samples=draws, words_only=True)
    (found,) = world.model.generate([prompt], generation)
    allowed = np.where(world.model.grammar.words, world.log_probs(prompt.tokens), -np.inf) / 5.0
    probs = np.exp(allowed - allowed.max())
    probs /= probs.sum()
    nucleus, total = {}, 0.0
    for token in np.argsort(-probs):
        if total >= 0.6:
            break
        nucleus[int(token)] = probs[token]
        total += probs[token]
    eos = world.model.vocabulary.eos_id
    drawn = [one.tokens[0] if one.tokens else eos for one in found]
    assert set(drawn) <= set(nucleus) and 1 < len(nucleus) < len(probs)
    for token, prob in nucleus.items():
        share, expected = drawn.count(token) / draws, prob / total
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-9
    (again,) = world.model.generate([prompt], generation)
    assert [one.tokens for one in again] == [one.tokens for one in found]


def test_beams_are_the_best_of_all_continuations_and_for_an_id_those_of_the_search(world):
    words, vocabulary = world.model.grammar.words, world.model.vocabulary
    prompt = world.reader.read("it was {item:i1}")
    generation = Generation(max_tokens=2, num_beams=300, words_only=True)  # wider than the vocabulary: exact
    (found,) = world.model.generate([prompt], generation)
    first = world.log_probs(prompt.tokens)
    best = sorted(np.flatnonzero(words), key=lambda token: -first[token])[:12]
    scores = {}
    for token in best:
        if token == vocabulary.eos_id:
            scores[()] = first[token]
            continue
        second = world.log_probs([*prompt.tokens, token])
        for other in np.flatnonzero(words):
            key = (int(token),) if other == vocabulary.eos_id else (int(token), int(other))
            scores[key] = first[token] + second[other]
    expected = sorted(scores.items(), key=lambda pair: -pair[1])[:5]
    assert [one.tokens for one in found[:5]] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose([one.log_prob for one in found[:5]], [score for _, score in expected], atol=1e-3)

    asked = world.reader.read("it was {item:i1} {sid}")
    (continuations,) = world.model.generate([asked], Generation(num_beams=6))
    model = world.model
    recommender = Recommender(model.decoder, model.vocabulary, model.table, num_beams=6, batch_size=1)
    codes, log_probs = recommender.search(model.params, from_rows([np.array(asked.lead)]))
    rows = model.table.lookup(codes[0][codes[0, :, 0] >= 0])
    assert [one.sids for one in continuations] == [(row,) for row in rows]
    np.testing.assert_allclose([one.log_prob for one in continuations], log_probs[0][: len(rows)], atol=1e-3)


def test_every_id_that_is_written_is_an_item_s(world):
    prompts = [world.reader.read(text) for text in (*PROMPTS, "birch {sid}")]
    levels = world.model.table.num_levels
    hot = Generation(max_tokens=12, temperature=4.0, num_samples=12)
    written = 0
    *free, asked = world.model.generate(prompts, hot)
    for continuation in itertools.chain(*free, asked):
        ids = np.array(continuation.tokens)
        codes = world.model.vocabulary.is_sid(ids).sum() if len(ids) else 0
        assert codes == levels * len(continuation.sids) and all(row >= 0 for row in continuation.sids)
        written += len(continuation.sids)
    assert written > 20  # of them 12 that were asked for
    # Where one is asked for there is one and, if the prompt ends with it, nothing else.
    for continuation in asked:
        assert len(continuation.tokens) == levels and len(continuation.sids) == 1


def test_prompts_are_words_and_tokens(world):
    vocabulary, table, read = world.model.vocabulary, world.model.table, world.reader.read
    sid = vocabulary.encode_sid(table.codes[3]).tolist()
    about = vocabulary.encode("is about")
    for text in ("{item:i3} is about", "{item:delta, the film} is about", "<A2><B0> is about", "{sid:A2 B0} is about"):
        assert read(text).tokens == (*sid, *about), text
    assert read("{item:i3|1}").tokens == tuple(sid[:1])
    assert read("<history> <rating:1>").tokens == (
        vocabulary.control_id("<history>"),
        vocabulary.encode_field("rating", 3),
    )
    assert read("a < b and <nothing>").tokens == tuple(vocabulary.encode("a < b and <nothing>"))
    for text, message in (
        ("{item:Amber nigth}", "there is no item 'Amber nigth': did you mean 'amber night'"),
        ("{film:i3}", "{film:i3} is none of {item:id or title}"),
        ("{sid:A9 B0}", "'A9' is no code of level 1; expected up to 2 codes, below (3, 4)"),
        ("{item:i3|3}", "expected 1 to 2 codes of an item, got 3"),
        ("  ", "expected words or Semantic IDs in a prompt"),
    ):
        with pytest.raises(PromptError) as error:
            read(text)
        assert message in str(error.value)
    for settings, message in (
        ({"num_beams": 2, "temperature": 1.0}, "beams are not drawn"),
        ({"top_p": 0.5}, "are of draws: set a temperature above 0"),
        ({"max_tokens": 0}, "of 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            Generation(**settings)
