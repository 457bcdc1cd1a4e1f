"""A blend finds who is right, leaves out who adds nothing, and its lists are those of its scores."""

import dataclasses

import numpy as np
import pytest
from random_split import NUM_ITEMS, random_split
from stages_of_split import stages_of_split

from plum_jax.evaluation.metrics import NOTHING, RankedItems
from plum_jax.evaluation.system import Ranking
from plum_jax.systems.blend import Blend
from plum_jax.systems.blend.candidates import CONSTANT, best_of, candidates_of
from plum_jax.systems.popularity import Popularity


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Ranks the target at a place, and items drawn by a seed at the others; for None the target is one of them."""

    place: int | None
    seed: int = 0
    facts: dict = dataclasses.field(default_factory=lambda: {"parameters": 3, "train_seconds": 1.0})

    @property
    def fingerprint(self) -> str:
        return f"oracle {self.place} {self.seed}"

    def fit(self, stages, name):
        return self

    def rank(self, evaluation, k):
        draw = np.random.default_rng(self.seed)
        lists = np.stack([draw.permutation(NUM_ITEMS) for _ in range(len(evaluation))])
        for row, target in zip(lists, evaluation.target_item, strict=True):
            if self.place is None:
                continue
            there = int(np.flatnonzero(row == target)[0])
            row[[self.place, there]] = row[[there, self.place]]
        lists = np.pad(lists[:, :k], ((0, 0), (0, max(0, k - NUM_ITEMS))), constant_values=NOTHING).astype(np.int32)
        return Ranking(RankedItems(lists, lists))


def test_candidates_are_each_users_items_with_their_discounts():
    lists = [np.array([[3, 1], [0, NOTHING]]), np.array([[1, 2], [5, 0]])]
    found = candidates_of(lists)
    assert list(zip(found.user.tolist(), found.item.tolist(), strict=True)) == [
        (0, 1), (0, 2), (0, 3), (1, 0), (1, 5)
    ]  # fmt: skip
    second = 1 / np.log2(3)
    expected = [[second, 1], [0, second], [1, 0], [1, second], [0, 1]]
    np.testing.assert_allclose(found.features[:, :2], expected, rtol=1e-6)
    assert np.all(found.features[:, 2] == CONSTANT)


def test_the_best_are_the_greatest_scores_of_each_user():
    found = candidates_of([np.array([[3, 1, 7], [0, 4, NOTHING]])])
    items, scores = best_of(found, np.array([0.5, 2.0, 2.0, 1.0, -1.0]), 3, 2)
    assert items.tolist() == [[3, 7], [0, 4], [NOTHING, NOTHING]]
    assert scores.tolist() == [[2.0, 2.0], [1.0, -1.0], [-np.inf, -np.inf]]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    systems = {"popularity": Popularity(), "knows": Oracle(0), "useless": Oracle(None, seed=1)}
    stages = stages_of_split(random_split(), tmp_path_factory.mktemp("blend"))
    return stages, Blend(systems, candidates=6, radius=15.0, passes=300), systems


def test_who_knows_the_target_gets_the_weight_within_the_ball(fitted):
    stages, blend, systems = fitted
    blended = blend.fit(stages, "blend")
    for weights in blended.weights.values():
        assert np.abs(weights).sum() <= 15.0 + 1e-4
        assert weights[1] > 2 * max(abs(weights[0]), abs(weights[2]), 0.1)
    assert set(blended.facts["weights"]) == set(systems)
    assert blended.facts["train_seconds"] == 2.0


def test_lists_are_those_of_the_scores(fitted):
    stages, blend, systems = fitted
    blended, users = blend.fit(stages, "blend"), stages.split.evaluation("test")
    ranking = blended.rank(users, 4)
    lists = [system.fit(stages, name).rank(users, 6).lists.unseen for name, system in systems.items()]
    for row in range(len(users)):
        scores = {}
        for weight, items in zip(blended.weights["unseen"], lists, strict=False):
            for rank, item in enumerate(items[row].tolist()):
                if item != NOTHING:
                    scores[item] = scores.get(item, 0.0) + weight / np.log2(rank + 2)
        best = sorted(scores.values(), reverse=True)[:4]
        np.testing.assert_allclose([scores[item] for item in ranking.lists.unseen[row].tolist()], best, atol=1e-5)


def test_what_was_fitted_is_read(fitted, monkeypatch):
    stages, blend, _ = fitted
    before = blend.fit(stages, "blend").fingerprint
    monkeypatch.setattr("plum_jax.systems.blend.system.solve", None)
    assert blend.fit(stages, "blend").fingerprint == before


def test_settings_that_cannot_be_are_one_clear_error():
    with pytest.raises(ValueError, match="expected at least one system, got none"):
        Blend({})
    with pytest.raises(ValueError, match="expected candidates, passes and radius > 0"):
        Blend({"popularity": Popularity()}, candidates=0)
