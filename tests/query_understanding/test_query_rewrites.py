"""Pairs by brute force; what is written is a query that users have, the likeliest; results by reading every title."""

import dataclasses
import itertools

import jax
import numpy as np
import planted_queries
import pytest

from plum_jax.corpus.taxonomy import NONE
from plum_jax.encoders.token_rows import token_rows
from plum_jax.query_understanding.rewrite_judge import TitleSearch, judged_rewrites, nearest_queries
from plum_jax.query_understanding.rewrite_pairs import KINDS, RewritePairs, nodes
from plum_jax.query_understanding.rewriter import START_TOKEN, Rewriter, joined_rows, prompt_rows

LONGEST = 6
PAIRS = RewritePairs(purity=0.75, least=2, draws=50)


@pytest.fixture(scope="module")
def log():
    return planted_queries.log(noise=0.2)


@pytest.fixture(scope="module")
def fitted(log, tmp_path_factory):
    schooling = planted_queries.schooling(60, 0.01)
    model = dataclasses.replace(planted_queries.MODEL, num_pieces=280)  # so few that most words are several
    rewriter = Rewriter(PAIRS, model, prompt_length=24, target_length=LONGEST, schooling=schooling)
    return rewriter.fit(log, tmp_path_factory.mktemp("rewriter"))


def test_a_query_stands_for_the_deepest_category_with_enough_of_its_conversions(log):
    found, lines = nodes(log, 0.75), log.taxonomy.lines
    for query in range(len(log.texts)):
        counts, wanted = log.conversions[[query]].toarray()[0], NONE
        for category in sorted(range(len(log.taxonomy)), key=lambda one: log.taxonomy.level[one]):
            below = [place for place, one in enumerate(log.classes) if category in lines[one]]
            if counts.sum() and counts[below].sum() >= 0.75 * counts.sum():
                wanted = category
        assert found[query] == wanted


def test_pairs_are_those_that_behaviour_gives(log):
    events, node = log.training_events, nodes(log, PAIRS.purity)
    user, item = (log.split.corpus.events[name].to_numpy() for name in ("user", "item"))
    wanted = {kind: set() for kind in KINDS}
    for a, b in itertools.permutations(events, 2):
        query, other = int(log.query[a]), int(log.query[b])
        if query == other or log.frequency[other] < 2:
            continue
        if item[a] == item[b] and NONE not in (node[query], node[other]):
            above = [one for one in log.taxonomy.lines[node[query]] if one not in (NONE, node[query])]
            if node[query] == node[other]:
                wanted["synonym"].add((query, other))
            elif node[other] in above:
                wanted["broader"].add((query, other))
    for a, b in itertools.pairwise(events):
        query, other = int(log.query[a]), int(log.query[b])
        next_to = user[a] == user[b] and item[a] != item[b] and log.class_of_event[a] == log.class_of_event[b]
        if next_to and query != other and log.frequency[other] >= 2:
            wanted["substitute"].add((query, other))
    pairs = PAIRS.of(log)
    for number, kind in enumerate(KINDS):
        chosen = pairs.kind == number
        found = list(zip(pairs.query[chosen].tolist(), pairs.target[chosen].tolist(), strict=True))
        assert {*found} <= wanted[kind] and len({*found}) == len(found)
        # Partners are drawn: with so many draws nearly all of them are there.
        assert len(found) > 0.95 * len(wanted[kind]) > 0
    few = RewritePairs(least=2, most=5).of(log)
    assert all((few.kind == number).sum() <= 5 for number in range(3))


def test_a_target_stands_behind_its_prompt_and_alone_is_learnt(fitted):
    prompts = prompt_rows(fitted.text, ["broader"], ["red lamp"], 24)
    targets = token_rows(fitted.text, ["lamp"], LONGEST)
    rows = {name: values[0] for name, values in joined_rows(prompts, targets).items()}
    length = int(prompts.lengths[0])
    whole = [*fitted.text.encode("broader : red lamp =>"), *fitted.text.encode("lamp"), fitted.text.special_ids.eos]
    assert rows["decoder_target_tokens"][: len(whole)].tolist() == whole
    assert rows["decoder_input_tokens"][: len(whole)].tolist() == [START_TOKEN, *whole[:-1]]
    assert np.flatnonzero(rows["decoder_loss_weights"]).tolist() == list(range(length, len(whole)))
    assert rows["decoder_segment_ids"].sum() == len(whole)


def test_rewrites_are_the_likeliest_of_all_that_may_be_written(log, fitted):
    query = "bolt lamp"
    assert all(log.frequency[log.texts.index(one)] >= 2 for one in fitted.allowed)
    (found,) = fitted.rewrites("synonym", [query], len(fitted.allowed))
    assert {*found} == {*fitted.allowed} - {query}
    # Of every query that may be written: the sum of log-probabilities of its pieces, among those that the others leave.
    spelt = [(*fitted.text.encode(one), fitted.text.special_ids.eos) for one in fitted.allowed]
    prompt = [START_TOKEN, *fitted.text.encode(f"synonym : {query} =>")]
    tokens = np.zeros((len(spelt), len(prompt) + LONGEST), np.int32)
    for row, pieces in zip(tokens, spelt, strict=True):
        row[: len(prompt) + len(pieces)] = [*prompt, *pieces]
    mask = np.broadcast_to(np.tri(tokens.shape[1], dtype=bool), (len(tokens), tokens.shape[1], tokens.shape[1]))
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    logits = np.asarray(jax.jit(fitted.decoder.apply)({"params": fitted.params}, tokens, places, mask).values)

    def score(number):
        pieces, total = spelt[number], 0.0
        for place, piece in enumerate(pieces):
            others = sorted({one[place] for one in spelt if one[:place] == pieces[:place] and len(one) > place})
            of_step = logits[number, len(prompt) + place - 1]
            total += of_step[piece] - np.log(np.exp(of_step[others]).sum())
        return total

    wanted = sorted(range(len(spelt)), key=score, reverse=True)
    assert found == [fitted.allowed[number] for number in wanted if fitted.allowed[number] != query]
    both = fitted.rewrites("synonym", [query, found[0]], len(fitted.allowed))
    assert both[0] == found and found[0] not in both[1]
    with pytest.raises(ValueError, match="expected a kind of rewrite of synonym, broader, substitute, got 'narrower'"):
        fitted.rewrites("narrower", [query], 1)


def test_results_have_every_word_and_the_popular_ones_stand_first(log):
    search = TitleSearch.of(log.split, ("title",))
    titles = log.split.corpus.items["title"].to_list()
    for query in ("lamp", "acme lamp", "acme", "lamp sofa", "unheard lamp"):
        wanted = [n for n, title in enumerate(titles) if {*query.split()} <= {*title.split()}]
        wanted.sort(key=lambda n: (-search.popularity[n], n))
        assert search.found([query], 100)[0].tolist() == wanted
        assert search.found([query], 2)[0].tolist() == wanted[:2]


def test_rewrites_are_judged_by_what_they_find(log, fitted):
    search = TitleSearch.of(log.split, ("title",))
    rows = {row["rewrites"]: row for row in judged_rewrites(log, fitted, search, count=2, k=3)}
    assert list(rows) == ["original", *KINDS, "one of each", "nearest"]
    events = np.flatnonzero(log.split.fold == 2)
    texts, item = [log.texts[log.query[event]] for event in events], log.split.corpus.events["item"].to_numpy()[events]
    for name, more in (
        ("original", [[] for _ in texts]),
        ("broader", fitted.rewrites("broader", texts, 2)),
        ("nearest", nearest_queries(fitted.allowed, texts, 2)),
    ):
        zero, hits = [], []
        for text, some, taken in zip(texts, more, item, strict=True):
            union = [one for query in (text, *some) for one in search.found([query], 3)[0]]
            zero.append(not union)
            hits.append(taken in list(dict.fromkeys(union))[:3])
        assert rows[name]["zero"] == pytest.approx(np.mean(zero))
        assert rows[name]["recall@3"] == pytest.approx(np.mean(hits))
    assert rows["original"]["zero_events"] > 0 and rows["original"]["zero_query_recall@3"] == 0
    difference = rows["broader"]["zero_over_original"]
    assert difference == pytest.approx(rows["broader"]["zero"] - rows["original"]["zero"])
