"""Small corpora for tests: written by hand as histories, or drawn at random."""

import dataclasses

import polars as pl
from hypothesis import strategies as st

from plum_jax.corpus import splits
from plum_jax.corpus.schema import Corpus

NUM_ITEMS = 6


def corpus_of(histories, clock="absolute", num_items=NUM_ITEMS, **item_columns) -> Corpus:
    """Corpus of `histories[user] = [(item, time), ...]`, or `[item, ...]` where only the order is known.

    Item i is "i<i>", user u is "u<u>".
    """
    rows = [
        (user, *(event if clock != "order" else (event, None)))
        for user, events in enumerate(histories)
        for event in events
    ]
    return Corpus(
        name="small",
        items=pl.DataFrame({"item_id": [f"i{i}" for i in range(num_items)], **item_columns}),
        users=pl.DataFrame({"user_id": [f"u{u}" for u in range(len(histories))]}),
        events=pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}, orient="row"),
        clock=clock,
    )


@st.composite
def histories(draw, clock="absolute", min_events=0):
    """Histories of up to 5 users, with repeated items, equal times and rows written twice."""
    item = st.integers(0, NUM_ITEMS - 1)
    event = item if clock == "order" else st.tuples(item, st.integers(0, 7))
    drawn = draw(st.lists(st.lists(event, min_size=min_events, max_size=9), min_size=1, max_size=5))
    return drawn if clock == "order" else [sorted(events, key=lambda event: event[1]) for events in drawn]


def with_leak(split: splits.Split, event: int) -> splits.Split:
    """The same split whose training events contain a held-out one, as a careless reader's would."""

    class Leaking(splits.Split):
        def training_events(self) -> pl.DataFrame:
            leaked = self.corpus.events[[event]].with_columns(pl.Series("event", [event], dtype=pl.Int64))
            return pl.concat([super().training_events(), leaked])

    return Leaking(**{field.name: getattr(split, field.name) for field in dataclasses.fields(split)})


def with_held_out_items_hidden(split: splits.Split) -> splits.Split:
    """The same split with a new, last item in every held-out event: who learns from training only sees no change."""
    corpus = split.corpus
    items = pl.concat([corpus.items, pl.DataFrame({"item_id": ["hidden"]})], how="diagonal")
    hidden = pl.Series(split.fold != splits.TRAIN)
    events = corpus.events.with_columns(
        item=pl.when(hidden).then(pl.lit(corpus.num_items, pl.Int32)).otherwise(pl.col("item"))
    )
    return dataclasses.replace(split, corpus=dataclasses.replace(corpus, items=items, events=events))
