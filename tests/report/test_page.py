"""The report of made-up runs: every figure is on the page, what is missing is named, nothing is fetched."""

import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import polars as pl
import pytest
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.files import write_evaluation
from plum_jax.report import charts
from plum_jax.report.page import write_report
from plum_jax.report.tables import popularity_table, result_table, verdicts
from plum_jax.semantic_ids.quality import quality
from plum_jax.semantic_ids.table import SidTable
from plum_jax.training.metrics_log import MetricsLog

ROWS = [
    {"name": "popularity", "recall@5": 0.05, "recall@5_se": 0.004, "recall@10": 0.0811, "recall@10_se": 0.0089},
    {
        "name": "with_cpt",
        "recall@5": 0.09,
        "recall@5_se": 0.006,
        "recall@10": 0.1611,
        "recall@10_se": 0.012,
        "recall@10_unseen": 0.1777,
        "recall@10_unseen_se": 0.0123,
        "sid_recall@10": 0.1999,
        "valid_share": 0.8642,
        "coverage@10": 0.31,
        "seed": 3,
        "commit": "abc1234567890+changes",
        "command": "plum --gin_file=gin/run/pipeline.gin",
        "wall_seconds": 512.5,
        "parameters": 1234567,
    },
]


class Page(html.parser.HTMLParser):
    """Text of a page, the ids and the attributes of its tags; fails on tags that do not match."""

    VOID = {"meta", "br", "link", "img", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.open_tags: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        assert not self.open_tags, f"never closed: {self.open_tags}"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open_tags and self.open_tags[-1] == tag, f"</{tag}> closes {self.open_tags[-1:]}"
        self.open_tags.pop()

    def handle_data(self, data):
        if "style" not in self.open_tags:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def small_corpus() -> Corpus:
    titles = ["<script>alert('x')</script>", "Alien & Aliens", None, "Brazil", "Casablanca", "Dune"]
    items = pl.DataFrame(
        {"item_id": list("abcdef"), "title": titles, "genres": [["x"], ["x"], ["y"], ["y"], ["x"], ["y"]]}
    )
    events = pl.DataFrame(
        {"user": [0, 0, 0, 1, 1, 1], "item": [0, 1, 2, 1, 3, 4], "time": [1, 2, 3, 1, 2, 3]},
        schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64},
    )
    users = pl.DataFrame({"user_id": ["u1", "u2"]})
    return Corpus("six films", items, users, events, ("title",), ("genres",), problems={"unknown item": 7})


def make_run(run: pathlib.Path) -> pathlib.Path:
    """A run's directory with something of everything."""
    corpus = small_corpus()
    corpus.save(run / "corpus", config={"source": "test"}, inputs={})
    codes = np.array([[0, 0], [0, 0], [0, 1], [2, 1], [2, 3], [3, 3]])
    table = SidTable.create(codes, (4, 4), list("abcdef"), corpus_fingerprint=corpus.fingerprint)
    table.save(run / "sids")
    report = quality(table, categories=corpus.items.select("genres"))
    artifact.write_json(run / "sids" / "quality.json", report)
    for name, start in (("cpt", 6.0), ("retrieval", 5.0), ("retrieval_without_cpt", 5.5)):
        log = MetricsLog(run / "train" / name, 0)
        for step in range(10, 510, 10):
            speed = {"steps_per_second": 2.0, "tokens_per_second": 2000.0}
            log.write(step, {"loss": start - step / 200, **speed})
        if name != "cpt":
            log.write(500, {"validation/recall@10": 0.2468, "validation/ndcg@10": 0.1})
        log.close()
    (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    sample = {"user_id": "u1", "history": [f"film {i}" for i in range(30)], "target": "Dune"}
    sample["recommended"] = [
        {"title": "Brazil", "score": -1.25, "hit": False},
        {"title": "Dune", "score": -2.5, "hit": True},
    ]
    artifact.write_json(run / "samples.json", [sample])
    (run / "config.gin").write_text("MODEL_DIR = '<here>'\n")
    return run


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def full_page(full_run: pathlib.Path) -> str:
    path = write_report(full_run)
    assert str(path) == str(full_run / "report.html")
    return path.read_text()


def test_every_part_of_a_run_is_on_the_page(full_page: str):
    text = Page(full_page).text
    assert "Missing:" not in text
    for figure in ("0.1611", "± 0.0120", "0.1777", "0.1999", "0.8642", "0.0811", "0.3100"):
        assert figure in text, f"{figure} of results.jsonl is not on the page"
    for fact in (
        "7 unknown item",
        "abc1234567+changes",
        "1,234,567",
        "512.5",
        "plum --gin_file=gin/run/pipeline.gin",
        "MODEL_DIR = '<here>'",
        "six films",
    ):
        assert fact in text, f"{fact} is not on the page"
    assert "Model with CPT − Most popular: +0.0800 Recall@10, +5.4 standard errors" in text
    assert "(after 20 earlier ones)" in text
    assert "film 29" in text and "film 19" not in text
    assert "Dune ✓ -2.50" in text and "Brazil -1.25" in text
    assert "0.50" in text, "million tokens of 500 steps of 1,000 tokens"
    assert "loss: retrieval and retrieval without CPT" in text
    assert "validation/recall@10" in text


def test_differences_are_paired_where_the_users_ranks_are_there(full_run: pathlib.Path, tmp_path: pathlib.Path):
    run = pathlib.Path(shutil.copytree(full_run, tmp_path / "run"))
    hits = {"popularity": [0] * 10 + [None] * 90, "with_cpt": [0] * 30 + [None] * 70}
    rows = [
        {"name": name, "recall@10": 1 - ranks.count(None) / 100, "recall@10_se": 0.04} for name, ranks in hits.items()
    ]
    (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        ranks = pl.Series(hits[row["name"]], dtype=pl.Int32)
        users = [f"u{n}" for n in range(100)]
        per_user = pl.DataFrame({"user_id": users, "target_item_id": users, "rank": ranks, "rank_unseen": ranks})
        write_evaluation(epath.Path(run / "evaluation" / f"{row['name']}.json"), row, per_user, "some inputs")
    text = Page(write_report(run).read_text()).text
    found = re.search(r"Most popular: \+0.2000 Recall@10, 95% interval \+0\.(\d+) to \+0\.(\d+), p = 0.0002", text)
    # 20 of 100 users have a difference of 1: its standard error is .04, that of independent estimates .057.
    assert found and abs(int(found[1]) - 1216) < 150 and abs(int(found[2]) - 2784) < 150
    assert "paired bootstrap" in text and "as if the two were measured on different users" not in text
    row = {**rows[1], "recall@10": 0.31}  # figures of another evaluation than the one whose ranks are there
    (run / "results.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(row) + "\n")
    assert "+0.2100 Recall@10, +3.7 standard errors" in Page(write_report(run).read_text()).text


def test_hits_by_popularity_are_a_table_with_counts():
    rows = [{"name": "popularity", "decile_1_recall@10": 0.25, "decile_1_hits@10": 3, "decile_1_users": 12}]
    rows += [{**rows[0], "name": "with_cpt", "cold_recall@10": 0.5, "cold_hits@10": 1, "cold_users": 2}]
    table = popularity_table(rows, 10)
    assert table["header"] == ["1", "new"]
    (_, first), (name, second) = table["rows"]
    assert (first[0]["text"], first[0]["error"], first[1]["text"]) == ("0.2500", "3 of 12", "–")
    assert (name, second[1]["text"], second[1]["error"]) == ("Model with CPT", "0.5000", "1 of 2")
    assert popularity_table(ROWS, 10) is None


def test_the_figures_of_semantic_ids_are_those_of_the_table(full_page: str):
    text = Page(full_page).text
    assert "66.7 %" in text, "4 of 6 items have an ID of their own"
    assert "A 4 3 0.750" in text, "level A: 4 codes, 3 used"
    assert "A0 B0 … 2 items" in text
    assert "Alien & Aliens" in text


def test_titles_are_text_never_markup(full_page: str):
    page = Page(full_page)
    assert "<script>alert('x')</script>" in page.text
    assert not any(tag == "script" for tag, _, _ in page.attributes) and "<script" not in full_page


def test_the_page_needs_nothing_from_elsewhere(full_page: str):
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|<link|<img|<iframe", full_page)
    for tag, name, value in Page(full_page).attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#"), f"<{tag} {name}={value!r}> points out of the page"


def test_pictures_take_their_colours_from_the_page(full_page: str):
    pictures = re.findall(r"<svg.*?</svg>", full_page, flags=re.DOTALL)
    assert len(pictures) == 6, "dots, two losses, validation, usage, prefix tree"
    for picture in pictures:
        assert not re.search(r"#[0-9a-f]{6}\b", picture), "a fixed colour would vanish on dark or on light"
        assert "var(--ink)" in picture
        assert "var(--series-1)" in picture


def test_an_empty_run_is_all_missing_and_never_zero(tmp_path: pathlib.Path):
    page = Page(write_report(tmp_path).read_text())
    for missing in (
        "results.jsonl",
        "train/*/metrics.jsonl",
        "samples.json",
        "config.gin",
        "sid_table",
        "corpus artefact",
    ):
        assert missing in page.text, f"{missing} is missing, and the page does not say so"
    assert not re.search(r"(?<![\d.])0\.0+(?![\d.])", page.text), "missing is missing, never 0"


@pytest.mark.parametrize("part", ["corpus", "sids", "train", "results.jsonl", "samples.json", "sids/quality.json"])
def test_any_part_may_be_missing(full_run: pathlib.Path, tmp_path: pathlib.Path, part: str):
    run = pathlib.Path(shutil.copytree(full_run, tmp_path / "run"))
    shutil.rmtree(run / part) if (run / part).is_dir() else (run / part).unlink()
    text = Page(write_report(run).read_text()).text
    assert "Missing:" in text
    assert ("0.1611" in text) == (part != "results.jsonl")


def test_a_figure_that_was_not_measured_is_a_dash(full_page: str):
    table = result_table(ROWS, [5, 10], "")
    columns = dict(zip(table["header"], table["rows"][0][1], strict=True))
    assert columns["SID Recall@10"]["text"] == "–" and columns["SID Recall@10"]["missing"]
    assert columns["Recall@10"] == {"text": "0.0811", "error": "± 0.0089", "best": False, "missing": False}
    assert "NDCG@10" not in columns, "no row has it"


def test_the_last_row_of_a_name_and_seed_counts(tmp_path: pathlib.Path):
    rows = [{"name": "with_cpt", "seed": 0, "recall@10": 0.1}, {"name": "with_cpt", "seed": 0, "recall@10": 0.2}]
    rows.append({"name": "with_cpt", "seed": 1, "recall@10": 0.3})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = Page(write_report(tmp_path).read_text()).text
    assert "0.2000" in text and "0.3000" in text and "0.1000" not in text
    assert "Model with CPT, seed 1" in text


def test_a_results_row_cut_short_is_an_error_that_names_it(tmp_path: pathlib.Path):
    (tmp_path / "results.jsonl").write_text('{"name": "popularity", "recall@10": 0.1}\n{"name": "wi')
    with pytest.raises(artifact.ArtifactError, match=r"row 2 of .*results.jsonl is not JSON"):
        write_report(tmp_path)


def test_a_directory_that_is_not_there(tmp_path: pathlib.Path):
    with pytest.raises(artifact.ArtifactError, match="there is no"):
        write_report(tmp_path / "nowhere")


def test_a_difference_has_the_error_of_independent_estimates():
    rows = [
        {"name": "with_cpt", "recall@10": 0.5, "recall@10_se": 0.03},
        {"name": "popularity", "recall@10": 0.6, "recall@10_se": 0.04},
        {"name": "item_knn", "recall@10": 0.4},
    ]
    assert verdicts(rows, "recall@10") == ["Model with CPT − Most popular: -0.1000 Recall@10, -2.0 standard errors"]


def test_the_prefix_tree_puts_larger_families_first_and_keeps_them_together():
    codes = np.array([[1, 0]] * 6 + [[0, 1]] * 3 + [[0, 2]])
    order = charts.by_prefix_size(codes)
    assert codes[order].tolist() == [[1, 0]] * 6 + [[0, 1]] * 3 + [[0, 2]]
    shuffled = np.random.default_rng(0).permutation(codes)
    assert shuffled[charts.by_prefix_size(shuffled)].tolist() == codes.tolist()


def test_boxes_of_the_prefix_tree_are_as_wide_as_their_items_and_cover_all():
    codes = np.array([[1, 0]] * 6 + [[1, 3]] * 1 + [[0, 1]] * 3 + [[0, 2], [0, 3]])
    assert list(charts.prefix_boxes(codes, 0, 2)) == [(0, 7, True), (7, 5, True)]
    assert list(charts.prefix_boxes(codes, 1, 2)) == [(0, 6, True), (6, 1, False), (7, 3, True), (10, 2, False)]
    assert list(charts.prefix_boxes(codes, 1, 0)) == [
        (0, 6, True),
        (6, 1, True),
        (7, 3, True),
        (10, 1, True),
        (11, 1, True),
    ]
