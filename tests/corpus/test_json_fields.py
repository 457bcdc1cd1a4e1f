"""Fields of JSON lines, decoded once a line, are those that Python's own reader finds."""

import json

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.corpus.sources.json_fields import json_fields

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXT
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXT, SCALARS, max_size=2)
KEYS = ("a", "b'c", "tags")


def found(lines: list[str], nested=("tags",)) -> list[dict[str, str | None]]:
    frame = pl.LazyFrame({"line": lines})
    return json_fields(frame, "line", dict(zip("xyz", KEYS, strict=True)), nested).drop("line").collect().to_dicts()


def as_text(value) -> str | None:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value if value is None or isinstance(value, str) else json.dumps(value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES) | st.just("[1") | st.just("3 {"), min_size=1, max_size=9)
)
def test_fields_are_those_of_python_s_reader(rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    for row, fields in zip(rows, found(lines), strict=True):
        for name, key in zip("xyz", KEYS, strict=True):
            value = row.get(key) if isinstance(row, dict) else None
            if isinstance(value, list | dict):
                assert json.loads(fields[name]) == value
            else:
                assert fields[name] == as_text(value)


def test_numbers_have_one_form_beside_a_line_that_is_looked_at_alone():
    lines = ['{"a": 1.0}', '{"a": 2.5, "b\'c": [1, 2]}', '{"a": 1}', "broken"]
    assert [row["x"] for row in found(lines)] == ["1", "2.5", "1", None]
    assert found(lines)[1]["y"] == "[1,2]"
