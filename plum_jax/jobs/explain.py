"""Why a model recommends what it does: for some users the history, and each item's score by level of its ID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.system import System
from plum_jax.jobs.chosen import chosen_system
from plum_jax.model.masks import packed_causal_mask
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items
from plum_jax.stages import Data, Stages
from plum_jax.systems.generative.pipeline import GenerativeStages
from plum_jax.systems.generative.reasons import Reasons
from plum_jax.systems.generative.system import FittedDecoder
from plum_jax.systems.item_history.system import FittedItemHistory

# Items of a list, their scores, log-probabilities by level [K, L], and of the item among all [K] where that has a part.
Parts = tuple[list[int], np.ndarray, np.ndarray, np.ndarray | None]


def explain(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    system: str | None = None,
    users: Sequence[str] | None = None,
    num_users: int = 3,
    items_per_user: int = 5,
) -> None:
    """Prints, and writes to MODEL_DIR/explanations.json, what some users' lists are made of.

    A decoder's score is the log-probability of the item's Semantic ID after the user's prompt, and so a sum over its
    levels; the first level tells how sure the model is of the kind of item, the last of the item among its like. An
    item-level model's is a share of it, and of the log-probability of the item among all.

    A decoder's recommendations have reasons: the event of the history without which the item would lose most, by a pass
    without each ("because", with the loss in nats), what both items have in common, and, where continued pre-training
    had explanations, what the model itself says.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      system: name of the row; None: the last of the table.
      users: names of test users; None: some, evenly spread.
      num_users: how many, where none are named.
      items_per_user: items of a list, seen ones removed; at most the number of beams.

    Raises:
      ValueError: no such system, one that writes no Semantic IDs, a name that no test user has, or a list longer than
        the beams.
    """
    stages = data.stages(model_dir)
    name, chosen = chosen_system(stages, systems, system)
    fitted = chosen.fit(stages, name)
    if not isinstance(fitted, FittedDecoder | FittedItemHistory):
        raise ValueError(f"system {name!r} says no more than its lists: set SYSTEM to one that writes Semantic IDs")
    beams = (fitted.stages.recommender if isinstance(fitted, FittedDecoder) else fitted.ranker).num_beams
    if items_per_user > beams:
        raise ValueError(f"expected ITEMS_PER_USER of at most {beams}, the number of beams, got {items_per_user}")
    test = stages.split.evaluation("test")
    chosen_users = [test.take(np.array([row])) for row in _rows(stages, test, users, num_users)]
    reasons = Reasons(fitted.stages, fitted.params, fitted.cpt) if isinstance(fitted, FittedDecoder) else None
    found = [_explanation(stages, fitted, reasons, user, items_per_user) for user in chosen_users]
    artifact.write_json(stages.directory / "explanations.json", found)
    print("\n".join(_text(one) for one in found))
    print(f"explanations of {name}: {stages.directory / 'explanations.json'}")


def _rows(stages: Stages, test: EvaluationSet, users: Sequence[str] | None, num_users: int) -> list[int]:
    """Rows of the test users that are asked for."""
    if users is None:
        return np.unique(np.linspace(0, len(test) - 1, min(num_users, len(test)), dtype=int)).tolist()
    names = [str(name) for name in stages.corpus.users["user_id"].gather(test.user).to_list()]
    unknown = [name for name in map(str, users) if name not in names]
    if unknown:
        raise ValueError(f"there is no test user {unknown[0]!r}; there are {len(names)}, such as {names[:3]}")
    return [names.index(str(name)) for name in users]


def _explanation(
    stages: Stages,
    fitted: FittedDecoder | FittedItemHistory,
    reasons: Reasons | None,
    user: EvaluationSet,
    k: int,
) -> dict[str, Any]:
    """Of one user."""
    found = _of_decoder(fitted, user, k) if isinstance(fitted, FittedDecoder) else _of_item_history(fitted, user, k)
    items, scores, by_level, among_all = found
    titles, target = _titles(stages), int(user.target_item[0])
    because = _because(reasons, user, items, titles) if reasons is not None else [{}] * len(items)
    dense = [None] * len(items) if among_all is None else [float(value) for value in among_all]
    return {
        "user_id": stages.corpus.users["user_id"][int(user.user[0])],
        "history": [
            {"title": titles[item], "sid": stages.table.sid_string(int(item))} for item in user.history(0)[-10:]
        ],
        "target": {"title": titles[target], "sid": stages.table.sid_string(target)},
        "recommended": [
            {
                "title": titles[item],
                "sid": stages.table.sid_string(item),
                "score": float(score),
                **({} if of_all is None else {"among_all": of_all}),
                "by_level": [float(value) for value in levels],
                "hit": item == target,
                **reason,
            }
            for item, score, levels, of_all, reason in zip(items, scores, by_level, dense, because, strict=True)
        ],
    }


def _of_decoder(fitted: FittedDecoder, user: EvaluationSet, k: int) -> Parts:
    stages = fitted.stages
    prompts = stages.prompts("test").filter(user=int(user.user[0]))
    codes, log_probs = stages.recommender.search(fitted.params, Ragged.from_series(prompts["prompt"]))
    lists, scores = rank_items(codes, log_probs, stages.table, k, Ragged.from_series(prompts["seen_items"]))
    items = [int(item) for item in lists[0] if item >= 0]
    levels = level_scores(stages, fitted.params, prompts["prompt"][0].to_list(), stages.table.codes[items])
    return items, scores[0, : len(items)], levels, None


def _because(reasons: Reasons, user: EvaluationSet, items: list[int], titles: list[str]) -> list[dict[str, Any]]:
    """The reason of each item; nothing for a user without two events, or where nothing is known of items."""
    corpus = reasons.stages.corpus
    (window,) = reasons.windows(user)
    if len(window.history_events) < 2 or not (corpus.item_features or corpus.text_fields):
        return [{}] * len(items)
    chosen = np.array(items)
    windows = window.take(np.zeros(len(items), np.int64))
    drops = Ragged(reasons.drops(windows, chosen), windows.lengths).rows()
    said = reasons.said(windows, chosen) if reasons.task is not None else [None] * len(items)
    history = reasons.writer.items(window.history_events)

    def named(item: int, other: int) -> dict[str, Any]:
        return {"title": titles[other], "shared": reasons.writer.shared.in_common(item, other)}

    found = []
    for item, drop, one in zip(items, drops, said, strict=True):
        place = int(drop.argmax())
        reason: dict[str, Any] = {"because": named(item, int(history[place])) | {"drop": float(drop[place])}}
        if one is not None:
            reason["said"] = {"title": titles[int(history[one.place])], "words": one.words}
        found.append(reason)
    return found


def _of_item_history(fitted: FittedItemHistory, user: EvaluationSet, k: int) -> Parts:
    ranking = fitted.rank(user, k)
    items = [int(item) for item in ranking.lists.unseen[0] if item >= 0]
    assert ranking.scores is not None
    dense, levels = fitted.ranker.parts(fitted.params, user, np.array([items], np.int32))
    return items, ranking.scores[0, : len(items)], levels[0], dense[0]


def level_scores(stages: GenerativeStages, params: Any, prompt: Sequence[int], codes: np.ndarray) -> np.ndarray:
    """float32 [K, L]: log-probability of each level of some Semantic IDs after one prompt, in one pass of the decoder.

    Args:
      stages: of the run.
      params: of its decoder.
      prompt: tokens without the start token.
      codes: int [K, L].
    """
    vocabulary, num_levels = stages.vocabulary, codes.shape[1]
    sids = codes + np.asarray(vocabulary.sid_offsets)
    before = np.tile([vocabulary.start_id, *prompt], (len(sids), 1))
    tokens = jnp.asarray(np.concatenate([before, sids[:, :-1]], axis=1), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    output: Any = stages.decoder.apply({"params": params}, tokens, positions, packed_causal_mask(jnp.ones_like(tokens)))
    log_probs = jax.nn.log_softmax(output.values[:, -num_levels:], axis=-1)
    return np.take_along_axis(np.asarray(log_probs), sids[..., None], axis=-1)[..., 0]


def _titles(stages: Stages) -> list[str]:
    fields = stages.corpus.text_fields
    return stages.corpus.items[fields[0] if fields else "item_id"].fill_null("(no title)").to_list()


def _text(one: dict[str, Any]) -> str:
    lines = [f"\nuser {one['user_id']}"]
    lines += [f"  took    {item['sid']:24s}{item['title']}" for item in one["history"]]
    lines.append(f"  next    {one['target']['sid']:24s}{one['target']['title']}")
    among_all = any("among_all" in item for item in one["recommended"])
    lines.append(f"  {'score':>8s}{'  among all' if among_all else ''}  by level")
    for item in one["recommended"]:
        parts = " ".join(f"{value:6.2f}" for value in item["by_level"])
        if among_all:
            parts = f"{item['among_all']:9.2f}  {parts}"
        mark = "  <- the next one" if item["hit"] else ""
        lines.append(f"  {item['score']:8.2f}  {parts}  {item['sid']:24s}{item['title']}{mark}")
        lines += _reason_text(item)
    return "\n".join(lines)


def _reason_text(item: Mapping[str, Any]) -> list[str]:
    lines = []
    if "because" in item:
        because = item["because"]
        shared = f"both are {', '.join(because['shared'])}" if because["shared"] else "nothing in common by metadata"
        lines.append(f"            because of {because['title']} ({because['drop']:+.2f} nats; {shared})")
    if "said" in item:
        lines.append(f"            in its own words: because of {item['said']['title']}: {item['said']['words']}")
    return lines
