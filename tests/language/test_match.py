"""Words that are true of an item: a model that has learnt its items by heart, and one that says the same of all."""

import dataclasses

import numpy as np
import pytest

from plum_jax.language.generation import Continuation
from plum_jax.language.match import WordMatch, match_figures, words
from plum_jax.language.samples import read_samples, sample_rows, write_samples

TEMPLATES = {
    "title_of_sid": "Item {sid} has title: {title:.100}",
    "sid_of_title": "title: {title} is item {sid}",
    "both": "{title} {sid} {title}",
}


@dataclasses.dataclass
class Parrot:
    """Stands where a model does, and answers by the prompt's Semantic ID: `says` of the codes given."""

    world: object
    says: object

    @property
    def vocabulary(self):
        return self.world.model.vocabulary

    @property
    def table(self):
        return self.world.model.table

    def generate(self, prompts, generation, description=""):
        assert generation.words_only
        self.prompts = prompts
        found = []
        for prompt in prompts:
            ids = [token for token in prompt.tokens if self.vocabulary.is_sid(token)]
            codes = tuple(int(i - o) for i, o in zip(ids, self.vocabulary.sid_offsets, strict=False))
            found.append([Continuation(self.says(codes), (), 0.0, (), True)])
        return found


def test_what_is_known_by_heart_matches_and_what_is_said_of_all_does_not(world):
    corpus, table = world.reader.corpus, world.model.table
    titles = corpus.items["title"].to_list()
    of_codes = {tuple(codes): title for codes, title in zip(table.codes.tolist(), titles, strict=True)}
    match = WordMatch(corpus, TEMPLATES, np.arange(6))
    knows = Parrot(world, lambda codes: of_codes.get(codes, ""))
    rows = match.judge(knows)
    assert [(row["field"], row["level"], row["items"]) for row in rows] == [("title", 1, 6), ("title", 2, 6)]
    # At level 1 nothing is written; item 3 has the ID of item 4, whose title is another.
    assert rows[0]["match"] == rows[0]["lift"] == 0
    assert rows[1]["match"] == pytest.approx(5 / 6) and rows[1]["lift_low"] > 0
    # The prompt is the sentence up to the field, with so many codes.
    lead = [*world.model.vocabulary.encode("Item"), int(world.model.vocabulary.sid_offsets[0])]
    assert knows.prompts[0].tokens == (*lead, *world.model.vocabulary.encode("has title:"))
    same = match.judge(Parrot(world, lambda codes: "The night song"))
    assert same[1]["match"] == pytest.approx(np.mean([1 / 3, 0, 1 / 3, 1 / 3, 0, 0]))  # night; song; Delta, the film
    assert same[1]["shuffled"] == pytest.approx(same[1]["match"], abs=0.08)
    assert same[1]["lift_low"] < 0 < same[1]["lift_high"]
    figures = match_figures(rows)
    assert figures["match_title_level_2"] == rows[1]["match"] and figures["match_title_level_1_lift_high"] == 0
    assert match.judge(knows) == rows


def test_words_are_compared_as_words():
    assert words("Delta, the FILM (1995)") == {"delta", "the", "film", "1995"}
    assert words("") == frozenset()


def test_samples_of_a_step_that_is_met_again_give_way(world, tmp_path):
    row = world.model.table.lookup(np.array([2, 0]))
    continuation = Continuation("text", (), -1.23456, (int(row),), True)
    rows = sample_rows(world.model, [("a prompt", [continuation])])
    expected = {"prompt": "a prompt", "text": "text", "log_prob": -1.2346, "items": [["i3", "i4"]], "ended": True}
    assert rows == [expected]
    for step in (10, 20, 30, 20):
        write_samples(tmp_path, step, rows)
    assert [found["step"] for found in read_samples(tmp_path)] == [10, 20]
    assert read_samples(tmp_path / "nowhere") == []
