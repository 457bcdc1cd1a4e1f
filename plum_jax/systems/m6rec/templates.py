"""What is known of users, behaviours and candidates, as sentences (M6-Rec, figure 3); nothing but words in, words out.

The paper's figure shows the segments, and its section 3 more templates that we could not read: those of statistics and
of conversations are in its manner, not its words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

_UNITS = ((365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_GENDERS = {"f": "female", "m": "male", "female": "female", "male": "male"}
_STEPS = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)  # percent: "among the top ..."
_HIGH, _LOW = 30, 70  # percent: up to the first a standing is high, beyond the second low


@dataclasses.dataclass(frozen=True)
class Wording:
    """Words of one kind of items.

    Attributes:
      noun: an item.
      taken: what the user did, where no label is known of it.
      liked, disliked: what the user did, by the label.
    """

    noun: str = "movie"
    taken: str = "watched"
    liked: str = "liked"
    disliked: str = "disliked"

    def verb(self, label: float) -> str:
        """Of a behaviour with label 1, 0, or NaN."""
        return self.taken if math.isnan(label) else self.liked if label else self.disliked

    def item(self, title: str, categories: Sequence[str]) -> str:
        """ "a movie named Toy Story, of Animation and Comedy." The same in a behaviour and as a candidate."""
        kinds = f", of {listed(categories)}" if categories else ""
        return f"a {self.noun} named {title}{kinds}."

    def behaviour(self, seconds: float | None, label: float) -> str:
        """ "Ten hours ago, the user liked": what comes before an item."""
        return f"{ago(seconds)}, the user {self.verb(label)}"

    @property
    def offer(self) -> str:
        """What comes before a candidate."""
        return "The user is now recommended"

    def standing(self, share: float) -> str:
        """ "The movie's rating is high, among the top 5%." of the share in [0, 1] that stands higher; NaN: nothing."""
        if math.isnan(share):
            return f"The {self.noun} is not rated yet."
        percent = next(step for step in _STEPS if 100 * share <= step)
        how = "high" if percent <= _HIGH else "low" if percent > _LOW else "average"
        return f"The {self.noun}'s rating is {how}, among the top {percent}%."

    def habit(self, liked: float, of_its_kind: float) -> str:
        """Of what the user took before, the shares that were liked, of all and of the candidate's categories."""
        if math.isnan(liked):
            return ""
        kind = "" if math.isnan(of_its_kind) else f", {tenths(of_its_kind)} of this kind"
        return f"The user {self.liked} {tenths(liked)} {self.noun}s{kind}."

    def explanation(self, title: str, category: str) -> str:
        """Why an item is recommended, by one of its categories."""
        return f"a {self.noun} named {title}, because it is {a(category)} {self.noun}."

    def question(self, titles: Sequence[str]) -> str:
        """The user's turn of a conversation."""
        return f"USER: I {self.liked} {listed(titles)}. What do you recommend?"

    def answer(self, title: str, category: str) -> str:
        """The system's turn."""
        return f"SYSTEM: You may like {title}, {a(category)} {self.noun}."


def profile(fields: Mapping[str, object]) -> str:
    """ "This is a female user, age 25, occupation writer."; a field without a value is not spoken of."""
    known = {name: value for name, value in fields.items() if value is not None}
    gender = _GENDERS.get(str(known.pop("gender", "")).lower(), "")
    rest = "".join(f", {name.replace('_', ' ')} {value}" for name, value in known.items())
    return f"This is a {gender + ' ' if gender else ''}user{rest}."


def ago(seconds: float | None) -> str:
    """ "Ten hours ago", in the largest unit that fits; None: the time is not known."""
    if seconds is None:
        return "Before"
    for size, unit in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            number = _NUMBERS[count - 1] if count <= len(_NUMBERS) else str(count)
            return f"{number.capitalize()} {unit}{'s' if count > 1 else ''} ago"
    return "Just now"


def listed(names: Sequence[str]) -> str:
    """ "A, B and C"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def tenths(share: float) -> str:
    """ "7 of 10"."""
    return f"{round(10 * share)} of 10"


def a(name: str) -> str:
    """With its article."""
    return f"{'an' if name[:1].lower() in set('aeiou') else 'a'} {name}"
