"""Why a decoder recommends what it does: for some users the history, and each item's score by level of its ID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.model.masks import packed_causal_mask
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items
from plum_jax.systems.generative.pipeline import GenerativeStages, Pipeline


def explain(
    model_dir: str, pipeline: Pipeline, users: Sequence[str] | None = None, num_users: int = 3, items_per_user: int = 5
) -> None:
    """Prints, and writes to MODEL_DIR/explanations.json, what some users' lists are made of.

    A score is the log-probability of the item's Semantic ID after the user's prompt, and so a sum over its levels; the
    first level tells how sure the model is of the kind of item, the last of the item among its like.

    Args:
      model_dir: of the run.
      pipeline: its stages.
      users: names of test users; None: some, evenly spread.
      num_users: how many, where none are named.
      items_per_user: items of a list, seen ones removed; at most the number of beams.

    Raises:
      ValueError: a name that no test user has, or a list longer than the beams.
    """
    stages = pipeline.stages(model_dir)
    if items_per_user > pipeline.evaluation.num_beams:
        raise ValueError(
            f"expected ITEMS_PER_USER of at most {pipeline.evaluation.num_beams}, the number of beams, got "
            f"{items_per_user}"
        )
    found = [_explanation(stages, row, items_per_user) for row in _rows(stages, users, num_users)]
    artifact.write_json(stages.directory / "explanations.json", found)
    print("\n".join(_text(one) for one in found))
    print(f"explanations: {stages.directory / 'explanations.json'}")


def _rows(stages: GenerativeStages, users: Sequence[str] | None, num_users: int) -> list[dict[str, Any]]:
    prompts = stages.prompts("test")
    if users is None:
        chosen = np.unique(np.linspace(0, len(prompts) - 1, min(num_users, len(prompts)), dtype=int))
        return prompts[chosen].to_dicts()
    names = [str(name) for name in stages.corpus.users["user_id"].gather(prompts["user"]).to_list()]
    unknown = [name for name in map(str, users) if name not in names]
    if unknown:
        raise ValueError(f"there is no test user {unknown[0]!r}; there are {len(names)}, such as {names[:3]}")
    return [prompts.row(names.index(str(name)), named=True) for name in users]


def _explanation(stages: GenerativeStages, row: dict[str, Any], k: int) -> dict[str, Any]:
    prompts = stages.prompts("test").filter(user=row["user"])
    codes, log_probs = stages.recommender.search(stages.params, Ragged.from_series(prompts["prompt"]))
    lists, scores = rank_items(codes, log_probs, stages.table, k, Ragged.from_series(prompts["seen_items"]))
    items = [int(item) for item in lists[0] if item >= 0]
    levels = level_scores(stages, row["prompt"], stages.table.codes[items])
    titles = _titles(stages)
    evaluation = stages.split.evaluation("test")
    history = evaluation.history(int(np.searchsorted(evaluation.user, row["user"])))
    return {
        "user_id": stages.corpus.users["user_id"][int(row["user"])],
        "history": [{"title": titles[item], "sid": stages.table.sid_string(int(item))} for item in history[-10:]],
        "target": {"title": titles[row["target_item"]], "sid": stages.table.sid_string(int(row["target_item"]))},
        "recommended": [
            {
                "title": titles[item],
                "sid": stages.table.sid_string(item),
                "score": float(scores[0, place]),
                "by_level": [float(value) for value in levels[place]],
                "hit": item == row["target_item"],
            }
            for place, item in enumerate(items)
        ],
    }


def level_scores(stages: GenerativeStages, prompt: Sequence[int], codes: np.ndarray) -> np.ndarray:
    """float32 [K, L]: log-probability of each level of some Semantic IDs after one prompt, in one pass of the decoder.

    Args:
      stages: of the run.
      prompt: tokens without the start token.
      codes: int [K, L].
    """
    vocabulary, num_levels = stages.vocabulary, codes.shape[1]
    sids = codes + np.asarray(vocabulary.sid_offsets)
    before = np.tile([vocabulary.start_id, *prompt], (len(sids), 1))
    tokens = jnp.asarray(np.concatenate([before, sids[:, :-1]], axis=1), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    output: Any = stages.decoder.apply(
        {"params": stages.params}, tokens, positions, packed_causal_mask(jnp.ones_like(tokens))
    )
    log_probs = jax.nn.log_softmax(output.values[:, -num_levels:], axis=-1)
    return np.take_along_axis(np.asarray(log_probs), sids[..., None], axis=-1)[..., 0]


def _titles(stages: GenerativeStages) -> list[str]:
    fields = stages.corpus.text_fields
    return stages.corpus.items[fields[0] if fields else "item_id"].fill_null("(no title)").to_list()


def _text(one: dict[str, Any]) -> str:
    lines = [f"\nuser {one['user_id']}"]
    lines += [f"  took    {item['sid']:24s}{item['title']}" for item in one["history"]]
    lines.append(f"  next    {one['target']['sid']:24s}{one['target']['title']}")
    lines.append(f"  {'score':>8s}  by level")
    for item in one["recommended"]:
        parts = " ".join(f"{value:6.2f}" for value in item["by_level"])
        mark = "  <- the next one" if item["hit"] else ""
        lines.append(f"  {item['score']:8.2f}  {parts}  {item['sid']:24s}{item['title']}{mark}")
    return "\n".join(lines)
