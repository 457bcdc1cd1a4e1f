"""The documents' commands are given on a miniature, word by word; behind them come sizes, which override those before.

Commands that differ in settings or places alone are of one kind (`Command.kind`), and one of a kind is run. A kind that
is neither run here nor in NOT_RUN, with the reason, fails.
"""

import dataclasses
import fnmatch
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

import documents
import pytest
from documents import REPOSITORY, Command
from miniature import write_miniature
from own_csv_run import SIZES, user_environment
from plum_process import PlumProcess


@dataclasses.dataclass(frozen=True)
class Given:
    """A kind of command, whose it is where several documents have one, and what is put behind it."""

    kind: str
    page: str = ""
    sizes: tuple[str, ...] = ()


def gin(more: Mapping[str, object] | None = None, /, **settings: object) -> tuple[str, ...]:
    """Flags; `more` has the names with dots."""
    return tuple(f"--gin.{name}={value}" for name, value in {**settings, **(more or {})}.items())


# The sizes of the finished run, so that most programs are compiled already.
NANO = "--gin_file=gin/model/cpu_nano.gin"
SMALL = (NANO, *gin(SIZES))
ML_100K = gin(DATA_DIR="'data/ml_100k'")
RQVAE = gin(
    {
        "CODEBOOK_SIZES": "(4, 4)",
        "COLLISIONS": "'keep'",
        "SID_STEPS": 4,
        "rqvae.RqVae.hidden_dims": "(16,)",
        "rqvae.RqVae.batch_size": 16,
        "rqvae.RqVae.restart_period": 4,
    }
)
CELL = (NANO, *RQVAE, *gin(RETRIEVAL_STEPS=4, BATCH_SIZE=4, KS="(5,)", NUM_BEAMS=5, NUM_PIECES=300))
SHORT = gin(ITEM_STEPS=2, ITEM_EPOCHS=None, SASREC_STEPS=2)
ITEMS = (*SHORT, *gin(LEM_STEPS=2))
LUM = gin(LUM_EPOCHS=None, LUM_STEPS=2, LUM_HISTORY_LENGTH=16, LUM_ROW_LENGTH=16)
TOWERS = gin({"search/config.DecoderConfig.num_layers": 1}, SEARCH_BATCH_SIZE=8, SEARCH_EPOCHS=None, SEARCH_STEPS=2)
TOWERS += gin(SEARCH_PIECES=300, SEARCH_WIDTH=16)
# Of three queries one each for training, validation and test.
FOLDS = gin({f"category_paths.CategoryQueries.{name}": 0.34 for name in ("held_out", "validation")})
PRODUCTS = (*TOWERS, *FOLDS, *gin(SEARCH_HISTORY=2))
UNICORN = gin(UNICORN_BATCH_SIZE=16, UNICORN_EPOCHS=1, UNICORN_CLUSTERS=2)
QUERIES = gin(
    BAG_EPOCHS=1, LM_EPOCHS=1, BEHAVIOUR_EPOCHS=1, STUDENT_EPOCHS=1, REWRITER_EPOCHS=1, BAG_WIDTH=8, BAG_BUCKETS=64
)
QUERIES += gin(PIECES=300, LM_LAYERS=1, LM_WIDTH=32, LM_HEADS=1, LM_MLP=32, UNLABELLED=20)
M6 = gin(M6_BATCH_SIZE=16, M6_LAYERS=1, M6_WIDTH=32, M6_HEADS=1, M6_PIECES=400, M6_PRETRAIN_EXAMPLES=32, M6_LENGTH=256)
RANK = gin(RANK_BATCH_SIZE=16, RANK_EVALUATION_PERIOD=2)
TRUNK = gin(TRUNK_EPOCHS=None, TRUNK_STEPS=2, TRUNK_HISTORY_LENGTH=16, TRUNK_ROW_LENGTH=16, TRUNK_STRIDE=8)
TUNE = gin(TUNE_EPOCHS=None, TUNE_STEPS=2)
TRUNK += gin({"trunk/training_config.TrainingConfig.select_by": "''", "TRUNK_EVALUATION_PERIOD": 0, "TRUNK_LAYERS": 1})
SCALED_TRUNK = (*ML_100K, *gin({"rules.Ladder.steps": "((16, 1),)", "grid.Horizons.tokens": "(4000,)"}, SEEDS="(0,)"))
SCALED_TRUNK += gin(BATCH_SIZE=4, HISTORY_LENGTH=16)
GAINS = gin(RANK_STEPS=2, BEHIND="(0,)", DAYS="()")
PAYMENTS = gin(PRETRAIN_EPOCHS=None, PRETRAIN_STEPS=2, DETECT_EPOCHS=None, DETECT_STEPS=2, DETECT_LEAST_STEPS=1)
PAYMENTS += gin({"PAYMENTS_WIDTH": 32, "PAYMENTS_HEADS": 1, "PAYMENTS_LAYERS": 1, "boosting.Boosting.iterations": 2})
PAYMENTS += gin({"card_payments.CardPayments.num_cards": 100, "card_payments.CardPayments.num_merchants": 10})
# A small decoder in the language model's place, and two models alone.
RELEVANCE = gin(
    {"language_model.LanguageModel.num_pieces": 290},
    PRETRAINED=None,
    TEACHER_LAYERS=2,
    TEACHER_BATCH_SIZE=8,
    STUDENT_BATCH_SIZE=8,
    STUDENT_STEPS=2,
)
TWO_RELEVANCE = gin(
    MODELS="{'teacher': @teacher/model.RelevanceModel(), 'distilled': @distilled/model.RelevanceModel()}",
    BASE="{'distilled': 'teacher'}",
    INT8="('distilled',)",
    TEACHER_LAYERS=1,
)
# Two cells, the first of which is that of the documents.
STUDY = (
    f"--gin_file={REPOSITORY}/tests/studies/tiny_study.gin",
    *gin({"BUDGETS": "(3e9,)", "HELD_OUT": "()", "rules.Ladder.steps": "((16, 2), (24, 2))"}),
)
# Not where the rows of the study as it is wait for their forecast.
MOVIELENS = (*STUDY, *gin(CODEBOOK_SIZES="(4, 4)", STUDY_DIR="'runs/movielens'"))
DAYS = (
    *SMALL,
    *gin(SELECT_BY="''", EVALUATION_PERIOD=0, BASE=0.5, DAYS=2, PASSES=1.0, FEATURES="[@features.TextEmbedding()]"),
)
POD = gin(TOPOLOGY="'v6e:2x2'", VOCAB_SIZE=4096, BATCH_SIZE=8, LENGTH=256, CODEBOOK_SIZES="(16, 16)", NUM_ITEMS=100)
EXPORTED = gin(
    PRETRAINED="'runs/quickstart/hugging_face'", TEXT_MODEL="'runs/quickstart/vocabulary/sentencepiece.model'"
)

# Each group in its order: what a command makes, a later one may read.
GROUPS = {
    "a finished run answers": [
        Given("plum recommend", "README.md"),
        Given("plum watch_next", "README.md"),
        Given("plum explain", "README.md"),
        Given("plum steer", "docs/language.md", gin(FIELD="'title'", VALUES="['The amber film']", TOP=4)),
        Given("plum faithfulness", "README.md"),
        Given("plum offline_recall", "docs/retrieval.md"),
        Given("plum generate", "README.md", gin(PROMPT="'The film {item:tt1} is about {sid}'", MAX_TOKENS=4)),
        Given("plum evaluate", "README.md"),
        Given("plum export_serving", "README.md"),
        Given("python runs/quickstart/serving/loader.py"),
        Given("plum export_model", "README.md"),
        Given("plum compare.gin", "docs/retrieval.md"),
        Given("plum assign_new_items", "docs/living_catalogue.md"),
        Given("plum extend_catalogue", "docs/living_catalogue.md"),
        # After extend_catalogue: the table that it has written.
        Given("plum recommend", "docs/living_catalogue.md"),
        Given("plum assign_new_items.gin"),
        Given("plum semantic_ids.gin my_corpus.gin frozen_ids.gin", sizes=gin(COLLISIONS=SIZES["COLLISIONS"])),
    ],
    "a corpus of one's own": [Given("plum pipeline.gin my_corpus.gin cpu_tiny.gin", "README.md", SMALL)],
    "rates are chosen": [
        Given(
            "plum mixture_rates.gin ml_100k.gin cpu_nano.gin",
            sizes=(*SMALL, *ML_100K, *gin(PROXY_STEPS=4, PROXY_ROUNDS=1)),
        ),
    ],
    "settings are searched": [
        Given(
            "plum search.gin ml_100k.gin",
            sizes=(
                *ML_100K,
                *gin({"item_history/training_config.TrainingConfig.evaluation_period": 2}, TRIALS=1),
                *gin(ITEM_STEPS=2, ITEM_EPOCHS=None, CODEBOOK_SIZES="(4, 4)", COLLISIONS="'extra_digit'"),
            ),
        ),
    ],
    "a run is prepared": [Given("plum prepare.gin ml_100k.gin cpu_tiny.gin", "docs/t5x.md", (*SMALL, *ML_100K))],
    "a trunk": [
        Given("plum trunk.gin ml_100k.gin", "docs/trunk.md", (*ML_100K, *TRUNK)),
        Given("plum trunk_embed.gin ml_100k.gin", "docs/trunk.md", (*ML_100K, *TRUNK)),
    ],
    "relevance": [
        Given("plum relevance.gin", "docs/relevance.md", (*RELEVANCE, *TWO_RELEVANCE)),
        Given("plum relevance_ask.gin", "docs/relevance.md", (*RELEVANCE, *gin(QUERY="'amber film'"), *TWO_RELEVANCE)),
    ],
    "queries are understood": [
        Given("plum query_understanding.gin beauty.gin", "docs/query_understanding.md", QUERIES),
        Given("plum simulator.gin beauty.gin"),
        Given("plum query_rewrites.gin beauty.gin", "docs/query_understanding.md", QUERIES),
        Given("plum query_serving.gin beauty.gin", "docs/query_understanding.md", QUERIES),
        # What the one before has written: the words of the miniature's titles are others than the page's.
        Given("plum query_ask.gin", "docs/query_understanding.md", gin(QUERY="'the amber film'")),
        Given("plum related_items.gin beauty.gin", "docs/query_understanding.md"),
    ],
    "days": [Given("plum days.gin ml_100k.gin cpu_tiny.gin", "docs/days.md", (*DAYS, *ML_100K))],
    "product search": [
        Given("plum product_search.gin beauty.gin", "docs/product_search.md", PRODUCTS),
        Given("plum product_search_quality.gin beauty.gin", "docs/product_search.md", PRODUCTS),
        Given("plum product_search_index.gin beauty.gin", "docs/product_search.md", (*PRODUCTS, *gin(MAX_EXAMPLES=4))),
        Given("plum product_search_ask.gin beauty.gin", "docs/product_search.md", (*PRODUCTS, *gin(QUERY="'amber'"))),
        Given("plum product_search_judged.gin", "docs/product_search.md", TOWERS),
    ],
    "nothing is trained": [
        Given("plum --help"),
        Given("plum model_size.gin cpu_tiny.gin"),
        Given("plum model_size.gin moe_900m.gin"),
    ],
}
PAGES = [
    Given("python experiments/scaling/tables.py"),
    Given("python experiments/semantic_ids/table.py"),
    Given("python experiments/accuracy/table.py"),
    Given("python experiments/plum_frontier/frontier.py"),
    Given("python experiments/frank_wolfe/table.py"),
    Given("python experiments/mixture_rates/table.py"),
    Given("python experiments/lum/table.py"),
    Given("python experiments/unicorn/table.py"),
    Given("python experiments/search/table.py"),
    Given("python experiments/payments/table.py"),
    Given("python experiments/m6rec/table.py"),
    Given("python experiments/language/table.py"),
    Given("python experiments/t5x/table.py"),
    Given("python experiments/init_cpt/table.py"),
    Given("python experiments/trunk/table.py"),
    Given("python experiments/steering/table.py"),
    Given("python experiments/days/table.py"),
    Given("python experiments/relevance/table.py"),
    Given("python experiments/query_understanding/table.py"),
]
SLOW = {
    "a study is planned": [
        Given("plum study_plan.gin simulator.gin simulated.gin", "docs/scaling_studies.md", STUDY),
        Given("plum study_status.gin", "docs/scaling_studies.md"),
    ],
    "runs are fitted": [
        Given("plum fit.gin", "docs/scaling_studies.md", gin(DRAWS=10)),
        Given("plum study_score.gin", "experiments/scaling/README.md"),
    ],
    "a study is run": [
        Given("plum study_plan.gin simulator.gin simulated.gin", "docs/scaling_studies.md", STUDY),
        Given("plum study_cell.gin simulator.gin simulated.gin", "docs/scaling_studies.md", STUDY),
        Given("plum study_run.gin simulator.gin simulated.gin", "docs/scaling_studies.md", STUDY),
        Given("plum study_plan.gin simulator.gin simulated.gin sasrec.gin", sizes=STUDY),
        Given("plum study_plan.gin simulator.gin simulated.gin lem.gin", sizes=STUDY),
        Given("plum study_plan.gin simulator.gin simulated.gin item_history.gin", sizes=STUDY),
        Given("plum study_plan.gin ml_1m_sequences.gin movielens.gin", sizes=MOVIELENS),
        Given("plum study_run.gin ml_1m_sequences.gin movielens.gin", "experiments/scaling/README.md", MOVIELENS),
    ],
    "runs are fitted with their recall": [
        Given("plum study_forecast.gin", "experiments/scaling/README.md", gin(DRAWS=10)),
        Given("plum study_fit.gin", "experiments/scaling/README.md", gin(DRAWS=10)),
        Given("plum study_report.gin", "experiments/scaling/README.md"),
        Given("plum fit.gin frontier.gin", sizes=gin(DRAWS=10)),
        Given("python -m plum_jax.scaling.coverage", sizes=("--studies", "2", "--draws", "4")),
    ],
    "MovieLens-100K": [
        Given("plum pipeline.gin ml_100k.gin cpu_tiny.gin", "docs/gin.md", (*SMALL, *ML_100K)),
        Given(
            "plum pipeline.gin ml_100k.gin cpu_tiny.gin language.gin",
            sizes=(*SMALL, *ML_100K, *gin(MATCH_ITEMS=3, MODEL_DIR="'runs/bilingual'")),
        ),
        Given("plum config.gin"),
        Given("plum pipeline.gin ml_100k.gin cpu_tiny.gin muon.gin", sizes=(*SMALL, *ML_100K)),
        Given(
            "plum pipeline.gin ml_100k.gin cpu_tiny.gin --profile",
            sizes=(*SMALL, *ML_100K, *gin(MODEL_DIR="'runs/profile'")),
        ),
        Given("plum semantic_ids.gin ml_100k.gin sid_v2.gin", "docs/semantic_ids.md", (*RQVAE, *ML_100K)),
    ],
    "events are ranked": [
        Given(
            "plum rank.gin ml_100k.gin",
            "docs/ranking.md",
            (*ML_100K, *RANK),
        ),
    ],
    "a large user model": [
        Given("plum lum_construct.gin ml_100k.gin", sizes=(*ML_100K, *LUM)),
        Given("plum lum_query.gin ml_100k.gin", sizes=(*ML_100K, *LUM)),
        Given("plum lum_use.gin ml_100k.gin", sizes=(*ML_100K, *LUM, *RANK)),
        Given("plum lum.gin ml_100k.gin", "docs/lum.md", (*ML_100K, *LUM, *RANK)),
        Given("plum lum_retrieval.gin ml_100k.gin", sizes=(*ML_100K, *LUM, *gin(TOWERS_BATCH_SIZE=16))),
        Given("plum study_plan.gin simulator.gin simulated.gin lum.gin", sizes=STUDY),
    ],
    "the study of product search": [
        Given("plum arms.gin", sizes=PRODUCTS),
        Given("plum minilm.gin", sizes=(*TOWERS, *gin(SEARCH_WIDTH=12))),  # as wide as the miniature's BERT
    ],
    "search and recommendations in one": [
        Given("plum unicorn_vectors.gin beauty.gin", sizes=LUM),
        Given("plum unicorn.gin beauty.gin", "docs/unicorn.md", UNICORN),
        Given("plum unicorn_ask.gin beauty.gin", "docs/unicorn.md", (*UNICORN, *gin(QUERY="'amber'"))),
        Given("plum unicorn_search.gin", "docs/unicorn.md", gin(SEARCH_BATCH_SIZE=4, SEARCH_EPOCHS=1)),
        Given("plum vectors.gin", sizes=LUM),
        Given("plum three_tasks.gin", sizes=UNICORN),
        Given("plum trunk_vectors.gin beauty.gin", sizes=TRUNK),
        Given("plum trunk_vectors.gin", sizes=TRUNK),
        Given("plum from_trunk.gin", sizes=UNICORN),
    ],
    "relevance is studied": [
        Given("plum home_depot.gin", sizes=(*RELEVANCE, *gin(SMALL_STEPS=2))),
        Given("plum crowdflower.gin", sizes=RELEVANCE),
        Given(
            "plum home_depot.gin minilm.gin",
            sizes=(
                *RELEVANCE,
                *gin({"minilm_3/pruning.GradualPruning.layers": 1}, PRETRAINED="'data/all-MiniLM-L6-v2'"),
            ),
        ),
    ],
    "behaviour as text": [
        Given("plum m6rec.gin ml_100k.gin", "docs/m6rec.md", (*ML_100K, *M6, *RANK, *gin(TRAINING_EVENTS=64))),
        Given(
            "plum m6rec_write.gin ml_100k.gin",
            "docs/m6rec.md",
            (*ML_100K, *M6, *gin(TEXTS=4, MAX_TOKENS=4, LABEL_AT_LEAST=2.0)),
        ),
        Given("plum m6rec_retrieval.gin beauty.gin", "docs/m6rec.md", (*M6, *gin(RETRIEVAL_EXAMPLES=32))),
    ],
    "a trunk is used": [
        Given("plum trunk_embed.gin ml_100k.gin", "docs/trunk.md", (*ML_100K, *TRUNK)),
        Given(
            "plum trunk_rank.gin ml_100k.gin",
            "docs/trunk.md",
            (*ML_100K, *TRUNK, *gin(RANK_EPOCHS=None, RANK_STEPS=2, RANK_EVALUATION_PERIOD=2)),
        ),
        Given("plum trunk_finetune.gin ml_100k.gin", "docs/trunk.md", (*ML_100K, *TRUNK, *TUNE)),
        Given("plum trunk_horizons.gin ml_100k.gin", sizes=(*ML_100K, *TRUNK, *gin(BEHIND="(0,)", DAYS="()"))),
        Given("plum study_plan.gin simulator.gin simulated.gin trunk.gin", sizes=STUDY),
    ],
    "a trunk is scaled": [
        Given("plum study_plan.gin ml_100k.gin trunk.gin scaling.gin", "docs/trunk.md", SCALED_TRUNK),
        Given("plum study_run.gin ml_100k.gin trunk.gin scaling.gin", "docs/trunk.md", SCALED_TRUNK),
        Given("plum study_gains.gin ml_100k.gin trunk.gin scaling.gin", "docs/trunk.md", (*SCALED_TRUNK, *GAINS)),
    ],
    "payments": [Given("plum payments.gin card_payments.gin", "docs/payments.md", PAYMENTS)],
    "all systems": [
        Given(
            "plum pipeline.gin ml_100k.gin cpu_tiny.gin all.gin",
            sizes=(
                *SMALL,
                *ML_100K,
                *gin(ESASREC_STEPS=2),
                *ITEMS,
            ),
        ),
        Given(
            "make quickstart",
            "README.md",
            (*SMALL, *ML_100K, *SHORT, *gin(MODEL_DIR="'runs/made'")),
        ),
    ],
    "a language model goes out and in": [
        Given("plum export_model", "README.md"),
        Given("plum pipeline.gin ml_100k.gin", "docs/pretrained.md", (*SMALL[1:], *ML_100K, *EXPORTED)),
    ],
    "Amazon Beauty": [
        Given("plum beauty.gin", sizes=SMALL),
        Given(
            "plum study.gin beauty.gin",
            "experiments/accuracy/run.sh",
            (*SMALL, *ITEMS, *gin(DATA_DIR="'data/amazon_beauty'")),
        ),
    ],
    "MovieLens-1M": [
        Given(
            "plum study.gin ml_1m.gin",
            "experiments/accuracy/run.sh",
            (*SMALL, *gin(ESASREC_STEPS=2, DATA_DIR="'data/ml_1m'"), *ITEMS),
        ),
        Given("plum study.gin ml_1m.gin study.gin", sizes=(*SMALL, *gin(DATA_DIR="'data/ml_1m'"), *ITEMS)),
    ],
    "Semantic IDs are judged": [
        Given("plum study.gin beauty.gin v1.gin", sizes=CELL),
        Given("plum study.gin beauty.gin no_multi_resolution.gin", sizes=CELL),
        Given("plum study.gin beauty.gin residual_kmeans.gin", sizes=CELL),
        Given("plum study.gin ml_1m.gin v2.gin", sizes=CELL),
        Given("plum study.gin ml_1m.gin no_co_occurrence.gin", sizes=CELL),
        Given("plum study.gin ml_1m.gin no_multi_embedding.gin", sizes=CELL),
        Given("plum study.gin ml_1m.gin random.gin", sizes=CELL),
        Given("plum study.gin ml_1m.gin cold_start.gin v2.gin", sizes=CELL),
    ],
    "a pod": [Given("plum compile.gin dense_110m.gin", sizes=POD)],
}
# Patterns of kinds that are not run, and why.
NOT_RUN = {
    "apt-get *": "changes the system",
    "pip *": "needs a package index",
    "*make test*": "is what runs this",
    "python experiments/frank_wolfe/run.py": "takes minutes; tests/frank_wolfe has the methods",
    "make lint": "is a part of what runs this",
    "make lock": "needs a package index; tests/test_makefile.py has the rest",
    "git clone": "needs a network",
    "*python -m t5x.*": "needs T5X; tests/interop/t5x/test_t5x_programs.py gives them where it is",
    "plum to_t5x": "needs T5X; tests/interop/t5x/test_t5x_checkpoints.py gives it where it is",
    "plum *from_t5x.gin*": "needs T5X; tests/interop/t5x/test_t5x_checkpoints.py gives it where it is",
    "python benchmarks/*": "takes minutes; some need PyTorch, MaxText or weights",
    "PYTHONPATH python tests/interop/make_expected.py": "needs transformers",
    "python -m plum_jax.training.coordinate_check": "takes minutes; tests/training/test_width_transfer.py has parts",
    "PROCESS_COUNT PROCESS_INDEX plum recommend": "waits for three more; tests/jobs/test_serving_jobs.py starts two",
    "plum pipeline.gin * --multi_process": "needs a cluster; tests/training/test_multi_process.py makes one",
    "plum study_plan.gin *pod.gin": "compiles each size of the study for a TPU, for minutes",
    "plum compile.gin moe_*.gin": "compiles for a quarter of an hour; dense_110m.gin is run",
    "plum compile.gin cpu_tiny.gin": "says what goes with compile.gin; dense_110m.gin is run",
    "plum study_cell.gin ml_1m_sequences.gin movielens.gin": "is what study_run.gin starts",
    "plum semantic_ids.gin ml_100k.gin cpu_tiny.gin": "says what goes with semantic_ids.gin; sid_v2.gin is run",
    "plum pipeline.gin ml_100k.gin cpu_tiny.gin sizes.gin": "a pipeline with other sizes, for experiments/t5x",
    "python experiments/t5x/steps.py": "needs T5X",
    "python experiments/t5x/collect.py": "reads what T5X has written",
    "plum mixture_rates.gin ml_1m_sequences.gin cpu_nano.gin sizes.gin": "is run on MovieLens-100K",
    "plum pipeline.gin ml_1m_sequences.gin cpu_nano.gin sizes.gin*": "a pipeline with other sizes and rates",
    "python experiments/search/crowdflower.py": "reads CrowdFlower's files; judged queries are run on Home Depot's",
    "plum unicorn.gin ml_100k.gin": "is run on Amazon Beauty, whose items have category paths",
    "plum product_search.gin ml_100k.gin": "the same",
    "plum query_understanding.gin ml_100k.gin": "the same",
    "plum ml_1m.gin": "classifies queries of films; the same is run on Amazon Beauty",
    "plum study.gin": "takes GroupLens's files of MovieLens-1M; lum.gin is run on MovieLens-100K",
    "plum study.gin continued.gin": "the same; tests/ranking/test_continued_training.py has the parts",
    "plum study.gin global_time.gin": "the same",
    "plum lum_retrieval.gin ml_1m.gin": "the same",
    "plum study_*.gin ml_1m.gin lum.gin scaling.gin": "the same; a study of LUM is planned on the simulator",
    "plum study_*.gin ml_1m.gin trunk.gin scaling.gin": "takes GroupLens's files; the same is run on MovieLens-100K",
    "plum pretrained.gin beauty.gin": "needs weights of another program; tests/interop reads such",
    "plum crowdflower.gin minilm.gin": "the second teacher is run on Home Depot's queries",
    "plum main.gin": "M6-Rec's study, on MovieLens-1M; m6rec.gin is run on MovieLens-100K",
    "plum all_labels.gin": "the same, of DIN alone",
    "plum late.gin": "the same, of parts that tests/jobs/test_m6rec_job.py runs",
    "plum exits.gin": "the same",
    "plum small.gin": "the same",
    "plum tuning.gin": "the same",
    "plum write.gin": "the same; m6rec_write.gin is run",
    "plum retrieval.gin": "is m6rec_retrieval.gin with other systems and sizes",
    "plum rank.gin": "the trunk's study, on MovieLens-1M; its parts are run on MovieLens-100K",
    "plum liked.gin": "the same",
    "plum cold.gin": "the same",
    "*plum trunk_embed.gin sizes.gin": "the same",
    "plum study.gin ml_100k.gin": "the same, on MovieLens-100K",
    "*plum trunk_versions.gin": "takes vectors of two trunks; tests/systems/trunk/test_trunk_uses.py makes them",
    "plum study.gin simulator.gin": "takes minutes; payments.gin is run",
    "plum study.gin sequences.gin": "the same",
    "plum study.gin handbook.gin": "the same, on the Handbook's transactions",
    "plum study.gin terminals.gin": "the same",
    "plum config.gin my_corpus.gin continue.gin": "needs a corpus that has grown: tests/jobs/test_grown_catalogue.py",
    "plum pipeline.gin ml_100k.gin cpu_tiny.gin requests.gin": "is language.gin's kind; tests/tasks/test_requests.py",
    "plum pipeline.gin ml_100k.gin cpu_tiny.gin language.gin study.gin": "a pipeline with other sizes",
    "plum pipeline.gin ml_1m.gin cpu_tiny.gin language.gin explanations.gin requests.gin study.gin": "the same",
    "plum common.gin *.gin": "search.gin with a grid, and it is run",
    "plum days.gin movielens.gin cpu_tiny.gin": "the same as days.gin, on MovieLens-1M with births",
    "plum days.gin simulator.gin cpu_tiny.gin": "the same, on the simulator",
    "plum study.gin * *.gin": "is run on the other corpus, or with other IDs",
}


def chosen(given: Given) -> Command:
    """The first of its kind in its page; what a target of make has `plum` do first."""
    found = [c for c in documents.commands() if c.kind == given.kind and c.file.startswith(given.page)]
    assert found, f"no document has {given.kind!r} (any more)"
    return documents.of_make(found[0])[0] if found[0].words[0] == "make" else found[0]


@pytest.fixture
def directory(finished, tmp_path) -> pathlib.Path:
    write_miniature(tmp_path, finished[0])
    return tmp_path


def give(group: Sequence[Given], plum: PlumProcess, directory: pathlib.Path) -> dict[str, str]:
    """Runs the commands of a group to their ends; returns what each kind printed."""
    printed = {}
    for given in group:
        command = chosen(given)
        words = [*command.words, *given.sizes]
        if words[0] == "plum":
            done = plum.run(words[1:], directory)
        else:
            assert words[0] == "python"
            done = subprocess.run(
                [sys.executable, *words[1:]],
                cwd=directory,
                env={**user_environment(), "PYTHONPATH": str(REPOSITORY), **dict(command.environment)},
                input=(directory / command.stdin).read_text() if command.stdin else "",
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        text = done.stdout + done.stderr
        assert done.returncode == 0, f"{command.place}: {' '.join(words)}\n{text[-3000:]}"
        printed[given.kind] = text
    return printed


@pytest.mark.parametrize("name", GROUPS)
def test_documented_commands_do_what_they_do(name: str, plum, directory):
    give(GROUPS[name], plum, directory)


def test_the_pages_of_the_experiments_are_what_their_commands_make_of_the_rows(plum, directory):
    printed = give(PAGES, plum, directory)
    for page in ("experiments/scaling/README.md", "experiments/semantic_ids/table4.svg"):
        assert (directory / page).read_text() == (REPOSITORY / page).read_text(), page
    for study, least in (
        ("semantic_ids", 20),
        ("accuracy", 4),
        ("frank_wolfe", 20),
        ("mixture_rates", 4),
        ("lum", 40),
        ("unicorn", 20),
        ("search", 20),
        ("payments", 30),
        ("m6rec", 30),
        ("language", 8),
        ("t5x", 4),
        ("init_cpt", 8),
        ("trunk", 8),
        ("days", 20),
        ("relevance", 30),
        ("query_understanding", 60),
    ):
        tables = printed[f"python experiments/{study}/table.py"].splitlines()
        assert len(tables) > least
        assert {*tables} <= {*(REPOSITORY / f"experiments/{study}/README.md").read_text().splitlines()}


def test_a_command_that_fails_has_its_exit_code_and_its_message(plum, tmp_path):
    done = plum.run(["recommend", "nowhere"], tmp_path)
    assert done.returncode == 1 and "there is no such directory" in done.stderr and "Traceback" not in done.stderr
    # Nobody's mistake: this is a traceback where `plum` has one.
    done = plum.run(["--gin_file=gin/run/model_size.gin", "--gin.MODEL_DIR='x'"], pathlib.Path("/nowhere"))
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert plum.run(["--help"], tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_documented_commands_that_take_longer_do_what_they_do(name: str, plum, directory):
    if name == "a pod":
        pytest.importorskip("libtpu", reason="libtpu is not installed: .[tpu]")
    give(SLOW[name], plum, directory)


def test_every_kind_of_command_is_run_or_it_is_said_why_not():
    run = {given.kind for group in (*GROUPS.values(), PAGES, *SLOW.values()) for given in group}
    kinds = {command.kind: command.place for command in documents.commands()}
    assert run <= kinds.keys(), f"no document has {sorted(run - kinds.keys())} (any more)"
    others = kinds.keys() - run
    excused = {kind: [p for p in NOT_RUN if fnmatch.fnmatchcase(kind, p)] for kind in others}
    unknown = [f"{kinds[kind]}: {kind!r}" for kind in sorted(others) if not excused[kind]]
    assert not unknown, "say how small they are in GROUPS, or in NOT_RUN why they are not run"
    assert {p for patterns in excused.values() for p in patterns} == {*NOT_RUN}, "a pattern excuses nothing"
