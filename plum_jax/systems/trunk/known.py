"""What the trunk may know: items with their ages, fields of events by when they are known, auxiliary targets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from plum_jax import artifact
from plum_jax.corpus.event_fields import GAP, HOUR, WEEKDAY, EventFields, missing_values
from plum_jax.corpus.schema import Corpus
from plum_jax.stages import Stages
from plum_jax.systems.known import ItemSizes, Known
from plum_jax.systems.trunk.items import Age, TrunkItems, item_ages

OF_REQUESTS = (GAP, HOUR, WEEKDAY)  # beside columns of users and context


@dataclasses.dataclass(frozen=True)
class TrunkFields:
    """What is read of events, by name (`corpus.event_fields.EventFields.of`).

    Attributes:
      request: known before the event: "gap", "hour", "weekday", columns of users and of the context.
      post: known after it: engagement such as a rating, a category of the item.
      auxiliary: what is predicted of the next event beside its item, and its weight in the loss: a category, an
        engagement in buckets.
      may_be_missing: fields that some events may lack, which are read as unknown there, and no target.
    """

    request: tuple[str, ...] = (GAP, HOUR, WEEKDAY)
    post: tuple[str, ...] = ()
    auxiliary: Mapping[str, float] = dataclasses.field(default_factory=dict)
    may_be_missing: tuple[str, ...] = ()

    def require(self, corpus: Corpus) -> None:
        """Raises `ValueError`: a field of requests that is known after the event alone, or one without a value in some
        events that may not be missing.
        """
        before = (*OF_REQUESTS, *corpus.user_features, *corpus.context_features)
        after = [name for name in self.request if name not in before]
        if after:
            raise ValueError(
                f"fields of requests are known before the event: expected names among {', '.join(before)}, got "
                f"{after}; what is known after it may be in post"
            )
        names = dict.fromkeys((*self.request, *self.post, *self.auxiliary))
        for name, rows in missing_values(corpus, list(names)).items():
            if name not in self.may_be_missing:
                user, item = (corpus.events[what][int(rows[0])] for what in ("user", "item"))
                raise ValueError(
                    f"corpus {corpus.name!r}: field {name!r} is missing in {len(rows):,} of {corpus.num_events:,} "
                    f"events, the first of user {corpus.users['user_id'][user]!r} and item "
                    f"{corpus.items['item_id'][item]!r} (row {rows[0]}): complete the data, or name it in "
                    "may_be_missing (TRUNK_MAY_BE_MISSING) to have it read as unknown there"
                )


@dataclasses.dataclass(frozen=True, eq=False)
class TrunkKnown:
    """Arrays by item and by event.

    Attributes:
      items: features and ages.
      post, request, auxiliary: buckets of every event's fields.
    """

    items: TrunkItems
    post: EventFields
    request: EventFields
    auxiliary: EventFields

    @classmethod
    def of(cls, stages: Stages, fields: TrunkFields, use_features: bool, age: Age) -> TrunkKnown:
        """Those of a run; only what is asked for is made.

        Raises:
          ValueError: see `TrunkFields.require`, `Known.of` and `item_ages`.
        """
        split = stages.split
        fields.require(split.corpus)
        known = Known.of(stages, use_features, fields.post, use_codes=False)
        others = (EventFields.of(split, names) for names in (fields.request, tuple(fields.auxiliary)))
        return cls(TrunkItems(known.features, item_ages(split, age)), known.events, *others)

    @property
    def sizes(self) -> ItemSizes:
        """As systems that read items have them: no codes; fields of all three kinds."""
        fields = (*self.post.sizes, *self.request.sizes, *self.auxiliary.sizes)
        return ItemSizes((), len(self.items.ages), self.items.features.shape[1], fields)

    @functools.cached_property
    def fingerprint(self) -> str:
        fields = (part.fingerprint for part in (self.post, self.request, self.auxiliary))
        return artifact.fingerprint(self.items.features, self.items.ages, *fields)
