"""Templates read as PLUM prints them; ids stay ids; errors name the field and the valid ones."""

import numpy as np
import polars as pl
import pytest

from plum_jax import ragged
from plum_jax.semantic_ids.field_tokens import Buckets, Categories
from tasks import templates
from tasks.fields import TemplateRows

FIELDS = ("sid", "title", "watch_ratio", "watch_time", "hours", "topics", "rating", "genre")
COLUMNS = {
    "title": ["Song Mix", None, "Night Drive"],
    "watch_ratio": [0.3, 1.0, None],
    "watch_time": [1500.0, 2.5, 3.0],
    "hours": [0.6666, float("nan"), 12.0],
    "topics": [["dance", "music"], [], None],
    "rating": [1.0, 4.0, None],
    "genre": [["a", "b"], None, ["c"]],
}


@pytest.fixture
def words(world):
    fields = (Buckets("rating", (2.0, 3.5)), Categories("genre", ("a", "b")))
    return type(world.vocabulary)(world.vocabulary.text, (4, 4, 4), world.vocabulary.control_tokens, fields)


@pytest.fixture
def rows(words) -> templates.Rows:
    sids = words.encode_sid(np.array([[0, 1, 2], [3, 2, 1]])).reshape(-1)
    return templates.Rows(
        3, ragged.Ragged(sids, np.array([3, 0, 3])), lambda name: pl.Series(COLUMNS[name], strict=False)
    )


def render(text: str, words, rows) -> list[str]:
    template = templates.parse(text, where="a template", fields=FIELDS, tokens=words.control_tokens)
    return [words.decode(row) for row in templates.Renderer(words).render(template, rows).rows()]


def test_plum_event_reads_as_in_figure_2(words, rows):
    text = "{sid} {title} {watch_ratio:.2%} {watch_time:.2f}s {hours:.2f}h"
    assert render(text, words, rows) == [
        "<A0><B1><C2> Song Mix 30.00% 1500.00s 0.67h",
        "100.00% 2.50s h",
        "<A3><B2><C1> Night Drive 3.00s 12.00h",
    ]


def test_texts_between_ids_are_one_run_each(words, rows):
    template = templates.parse("Video {sid} has title (en): {title}!", where="", fields=FIELDS, tokens=())
    first = templates.Renderer(words).render(template, rows).rows()[0].tolist()
    sid = words.encode_sid([0, 1, 2]).tolist()
    assert first == words.encode("Video") + sid + words.encode("has title (en): Song Mix!")


def test_tokens_fields_and_lists(words, rows):
    assert render("<history>{rating}{genre}<user> {topics:.8}", words, rows) == [
        "<history><rating:0><genre:a><genre:b><user> dance, m",
        "<history><rating:2><genre:none><user>",
        "<history><rating:none><genre:other><user>",
    ]


def test_white_space_alone_is_no_token(words, rows):
    template = templates.parse(" {sid}  {rating} ", where="", fields=FIELDS, tokens=())
    assert [len(row) for row in templates.Renderer(words).render(template, rows).rows()] == [4, 1, 4]


def test_errors_name_what_is_wrong_and_what_is_valid(words, rows):
    with pytest.raises(
        templates.TemplateError, match="event template of task x: '{sid} {titel}' has no field 'titel'; "
    ):
        templates.parse("{sid} {titel}", where="event template of task x", fields=FIELDS, tokens=())
    with pytest.raises(templates.TemplateError, match="valid are genre, hours, rating, sid, title"):
        templates.parse("{}", where="x", fields=FIELDS, tokens=())
    with pytest.raises(templates.TemplateError, match="<histroy>, which is no control token .*<history>"):
        render("<histroy> {sid}", words, rows)
    with pytest.raises(templates.TemplateError, match="cannot be read"):
        render("{sid", words, rows)
    with pytest.raises(templates.TemplateError, match=r"field {title:.2f} cannot be written.*String"):
        render("{title:.2f}", words, rows)


def test_as_text():
    assert templates.as_text(0.1 + 0.2) == "0.3"
    assert templates.as_text(["a", "b"]) == "a, b"
    assert templates.as_text(7) == "7"
    assert templates.as_text(None, ".2f") == "" == templates.as_text(float("nan"))


def test_rows_refuse_a_table_or_vocabulary_of_another_world(world, make_world):
    other = make_world([[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="build the table again"):
        TemplateRows(other.corpus, world.table, world.vocabulary)
    words = type(world.vocabulary)(world.vocabulary.text, (4, 4, 5))
    with pytest.raises(ValueError, match="build the vocabulary again"):
        TemplateRows(world.corpus, world.table, words)
