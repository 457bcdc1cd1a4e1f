"""AUC, GAUC, log loss and their errors against scikit-learn, all pairs, and draws from a known law."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss, roc_auc_score

from plum_jax.evaluation.metrics import classification as metrics
from plum_jax.evaluation.metrics.classification_differences import delong_difference, user_bootstrap


@pytest.fixture(params=[None, 1], ids=["no ties", "ties"])
def drawn(request):
    random = np.random.default_rng(3)
    labels = (random.random(300) < 0.4).astype(np.float32)
    scores = random.normal(size=(2, 300)) + labels
    scores = scores if request.param is None else scores.round(request.param - 1)
    return labels, scores.astype(np.float32), random.integers(0, 40, 300) * 3


def test_figures_are_scikit_learn_s(drawn):
    labels, (logits, _), users = drawn
    found = metrics.classification_metrics(labels, logits, users)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert found["mean_prediction"] == pytest.approx(probabilities.mean())
    of_user = {user: users == user for user in np.unique(users)}
    both = {user: mine for user, mine in of_user.items() if 0 < labels[mine].sum() < mine.sum()}
    aucs = [roc_auc_score(labels[mine], logits[mine]) for mine in both.values()]
    weights = [mine.sum() for mine in both.values()]
    assert found["gauc"] == pytest.approx(np.average(aucs, weights=weights), abs=1e-12)
    assert (found["gauc_users"], found["users"], found["events"]) == (len(both), len(of_user), 300)
    within = metrics.within_users(labels, logits, users)
    assert within.user.tolist() == list(both) and within.events.tolist() == weights


def test_delong_is_the_structural_components_of_all_pairs(drawn):
    labels, scores, _ = drawn
    positive = labels == 1
    components = np.stack([metrics.placements(labels, one) for one in scores])
    above = [np.sign(one[positive].astype(np.float64)[:, None] - one[~positive]) / 2 + 0.5 for one in scores]
    for psi, found in zip(above, components, strict=True):
        np.testing.assert_allclose(found[positive], psi.mean(axis=1), atol=1e-12)
        np.testing.assert_allclose(found[~positive], psi.mean(axis=0), atol=1e-12)
    of_ones, of_zeros = (np.cov([psi.mean(axis=axis) for psi in above]) for axis in (1, 0))
    expected = of_ones / positive.sum() + of_zeros / (~positive).sum()
    covariance = metrics.delong_covariance(labels, components)
    np.testing.assert_allclose(covariance, expected, rtol=1e-10)
    difference = delong_difference(labels, *scores)
    error = np.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    mean = roc_auc_score(labels, scores[0]) - roc_auc_score(labels, scores[1])
    assert difference.mean == pytest.approx(mean, abs=1e-12)
    assert difference.high - difference.low == pytest.approx(2 * norm.ppf(0.975) * error)
    assert difference.p_value == pytest.approx(2 * norm.sf(abs(mean) / error))


def test_where_every_event_is_a_user_both_errors_are_one(drawn):
    labels, (scores, _), _ = drawn
    components = metrics.placements(labels, scores)
    over_events = np.sqrt(metrics.delong_covariance(labels, components[None])[0, 0])
    assert metrics.user_error(labels, components, np.arange(300)) == pytest.approx(over_events, rel=0.01)


def test_a_draw_of_users_is_their_events_so_many_times(drawn):
    """The bootstrap's sums by weights against the events themselves, repeated."""
    labels, scores, users = drawn
    random, count = np.random.default_rng(5), len(np.unique(users))
    place = np.unique(users, return_inverse=True)[1]
    expected = []
    for _ in range(7):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        events = np.concatenate([np.flatnonzero(place == user) for user in range(count) for _ in range(times[user])])
        copy = np.concatenate([[n] * (place == user).sum() for user in range(count) for n in range(times[user])])
        one = [
            (
                roc_auc_score(labels[events], some[events]),
                metrics.within_users(labels[events], some[events], place[events] + 1000 * copy).gauc.value,
                metrics.log_losses(labels[events], some[events]).mean(),
            )
            for some in scores
        ]
        expected.append(np.subtract(*one))
    found = user_bootstrap(labels, *scores, users, draws=7, seed=5)
    for name, values in zip(("auc", "gauc", "log_loss"), np.transpose(expected), strict=True):
        np.testing.assert_allclose([found[name].low, found[name].high], np.quantile(values, [0.025, 0.975]), rtol=1e-9)
    assert found["auc"].mean == pytest.approx(np.subtract(*(roc_auc_score(labels, some) for some in scores)))


def test_intervals_hold_what_is_true_where_users_differ():
    """Users with a taste of their own: the difference of two models that are equally good is 0."""
    random, inside, errors, aucs = np.random.default_rng(0), {"auc": 0, "gauc": 0, "log_loss": 0}, [], []
    users = np.repeat(np.arange(60), 8)
    for seed in range(60):
        taste = random.normal(size=60)[users]
        labels = (random.random(480) < 1 / (1 + np.exp(-taste))).astype(float)
        first, second = (taste + random.normal(size=60)[users] + 0.5 * random.normal(size=480) for _ in range(2))
        for name, found in user_bootstrap(labels, first, second, users, draws=200, seed=seed).items():
            inside[name] += found.low <= 0 <= found.high
        errors.append(metrics.classification_metrics(labels, first, users)["auc_se"])
        aucs.append(metrics.auc(labels, first))
    assert all(50 <= number <= 60 for number in inside.values()), inside
    # The error over users is what AUCs of other users scatter by; that over events is too small here.
    assert np.mean(errors) == pytest.approx(np.std(aucs), rel=0.3)


def test_the_same_model_twice_differs_by_nothing(drawn):
    labels, (scores, _), users = drawn
    for found in (delong_difference(labels, scores, scores), *user_bootstrap(labels, scores, scores, users).values()):
        assert (found.mean, found.p_value) == (0, 1)


def test_large_logits_have_their_loss():
    assert metrics.log_losses(np.array([0, 1]), np.array([800.0, 800.0])).tolist() == [800.0, 0.0]


@pytest.mark.parametrize(
    "labels, scores, message",
    [
        ([1, 1], [0.0, 1.0], "AUC compares .* and all 2 are 1: expected both labels"),
        ([0, 0], [0.0, 1.0], "all 2 are 0"),
        ([0, 2], [0.0, 1.0], "expected labels of 0 and 1, got 2 among them"),
        ([0, 1], [0.0, np.nan], "expected finite scores, got nan for event 1"),
        ([0, 1, 1], [0.0, 1.0], r"got shapes \(3,\) and \(2,\)"),
    ],
)
def test_what_has_no_auc_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(np.array(labels), np.array(scores))


def test_users_of_one_label_have_no_gauc():
    labels, scores, users = np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])
    found = metrics.classification_metrics(labels, scores, users)
    assert "gauc" not in found and found["gauc_users"] == 0 and found["auc"] == 1
    assert user_bootstrap(labels, scores, -scores, users, draws=5).keys() == {"auc", "log_loss"}
