"""T5X's own programs, from a prepared run to recommendations, as docs/t5x.md has them."""

import json
import re

import jax
import numpy as np
import pytest
from t5x_run import ABSENT, NANO, program

pytest.importorskip("t5x.models", reason=ABSENT)

from plum_jax.evaluation.metrics import Catalogue
from plum_jax.interop.t5x.checkpoints import read_checkpoint, slots_for
from plum_jax.interop.t5x.optimizer_def import OptimizerDef
from plum_jax.interop.t5x.run_files import RunFiles
from plum_jax.model.decoder import Decoder
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import Recommender, rank_items
from plum_jax.systems.generative.evaluator import RetrievalEvaluator
from plum_jax.systems.generative.phase import Phase, train_phase
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

SMALL = ["--gin.BATCH_SIZE=8", "--gin.LENGTH=64", "--gin.STATS_PERIOD=2", "--gin.CHECKPOINT_PERIOD=4"]


def text(value):
    return f"'{value}'"


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """CPT on eight fake devices, then fine-tuning on one."""
    directory, run = tmp_path_factory.mktemp("t5x"), f"--gin.RUN_DIR={text(finished[0])}"
    model = "--gin_file=gin/model/cpu_nano.gin"
    cpt = program(
        "train",
        "--gin_file=gin/t5x/cpt.gin",
        model,
        run,
        f"--gin.MODEL_DIR={text(directory / 'cpt')}",
        "--gin.TRAIN_STEPS=4",
        "--gin.mesh.MeshShape.fsdp=2",
        "--gin.mesh.MeshShape.tensor=2",
        "--gin.MICROBATCHES=2",
        *SMALL,
        devices=8,
    )
    assert cpt.returncode == 0, cpt.stderr[-3000:]
    tuned = program(
        "train",
        "--gin_file=gin/t5x/finetune.gin",
        model,
        run,
        f"--gin.MODEL_DIR={text(directory / 'tuned')}",
        f"--gin.INITIAL_CHECKPOINT_PATH={text(directory / 'cpt' / 'checkpoint_4')}",
        "--gin.TRAIN_STEPS=8",
        "--gin.EVAL_PERIOD=4",
        "--gin.EVAL_BATCH_SIZE=8",
        "--gin.KS=(1, 5)",
        "--gin.NUM_BEAMS=10",
        "--gin.utils.SaveCheckpointConfig.keep=9",
        *SMALL,
    )
    assert tuned.returncode == 0, tuned.stderr[-3000:]
    return directory, run, model, cpt, tuned


def test_fine_tuning_begins_with_the_parameters_of_cpt_and_nothing_else(trained):
    directory, *_ = trained
    before = read_checkpoint(directory / "cpt" / "checkpoint_4")
    start = read_checkpoint(directory / "tuned" / "checkpoint_0")
    jax.tree.map(np.testing.assert_array_equal, before.params, start.params)
    assert before.step == 4 and start.step == 0
    assert slots_for(OptimizerDef(AdamW(), 4), before.params, before.slots) is not None, "plum goes on with T5X's slots"
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(start.slots))
    assert read_checkpoint(directory / "tuned" / "checkpoint_8").step == 8


def test_losses_and_recall_are_logged(trained):
    *_, cpt, tuned = trained
    losses = [float(x) for x in re.findall(r"collection=train .*?\bloss=([\d.]+)", cpt.stderr)]
    assert len(losses) >= 2 and losses[-1] < losses[0] + 0.5
    assert re.search(r"plum_prompts_\w+/recall@5 at step 8: [\d.]+", tuned.stderr)
    assert re.search(r"collection=training_eval/plum_prompts_\w+ .*cross_entropy=", tuned.stderr)


def evaluated(trained, finished):
    directory, *_ = trained
    run = RunFiles(str(finished[0]))
    params = read_checkpoint(directory / "tuned" / "checkpoint_8").params
    decoder = Decoder(NANO, run.vocabulary.vocab_size)
    return run, params, Recommender(decoder, run.vocabulary, run.table, num_beams=10)


def test_t5x_eval_computes_the_recall_that_plum_computes(trained, finished):
    directory, run, model, *_ = trained
    done = program(
        "eval",
        "--gin_file=gin/t5x/eval.gin",
        model,
        run,
        f"--gin.CHECKPOINT_PATH={text(directory / 'tuned' / 'checkpoint_8')}",
        f"--gin.EVAL_OUTPUT_DIR={text(directory / 'eval')}",
        "--gin.BATCH_SIZE=4",
        "--gin.KS=(1, 5)",
        "--gin.NUM_BEAMS=10",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (directory / "eval" / "inference_eval").glob("*-metrics.jsonl")
    metrics = json.loads(path.read_text().splitlines()[-1])
    files, params, recommender = evaluated(trained, finished)
    ours = RetrievalEvaluator(
        recommender,
        files.folds["test"],
        ks=(1, 5),
        free_search_users=0,
        catalogue=Catalogue(files.table.num_items, codes=files.table.codes),
    )(params)
    for name in ("recall@1", "recall@5", "recall@5_unseen", "ndcg@5", "sid_recall@5"):
        assert metrics[name] == pytest.approx(ours[name], abs=1e-6), name


def test_t5x_infer_writes_the_lists_that_plum_gives(trained, finished):
    directory, run, model, *_ = trained
    done = program(
        "infer",
        "--gin_file=gin/t5x/infer.gin",
        model,
        run,
        f"--gin.CHECKPOINT_PATH={text(directory / 'tuned' / 'checkpoint_8')}",
        f"--gin.INFER_OUTPUT_DIR={text(directory / 'lists')}",
        "--gin.BATCH_SIZE=4",
        "--gin.NUM_BEAMS=10",
        "--gin.ITEMS_PER_USER=3",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (directory / "lists").glob("*.jsonl-00000-of-00001")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    files, params, recommender = evaluated(trained, finished)
    rows = files.folds["test"]
    codes, scores = recommender.search(params, Ragged.from_series(rows["prompt"]))
    items, _ = rank_items(codes, scores, files.table, 3, Ragged.from_series(rows["seen_items"]))
    assert [line["user_id"] for line in lines] == [files.user_ids[user] for user in rows["user"].to_list()]
    assert [line["items"] for line in lines] == [
        [str(item) for item in files.table.item_ids[listed[listed >= 0]]] for listed in items
    ]


def test_bad_input_is_one_clear_error(trained, finished):
    directory, run, model, *_ = trained
    checkpoint = f"--gin.CHECKPOINT_PATH={text(directory / 'tuned' / 'checkpoint_8')}"
    out = f"--gin.EVAL_OUTPUT_DIR={text(directory / 'bad')}"
    files = ["--gin_file=gin/t5x/eval.gin", model, run, checkpoint, out]
    nowhere = program("eval", *files, f"--gin.RUN_DIR={text(directory)}")
    assert "expected the directory of a run of plum in RUN_DIR" in nowhere.stderr
    other = program("eval", *files, "--gin.config.DecoderConfig.qk_norm=True")
    assert "is of another decoder than this configuration and vocabulary: transformer/layers/attention/" in other.stderr
    wider = program("eval", *files, "--gin.config.DecoderConfig.mlp_dim=96")
    assert re.search(r"checkpoint_8 is of another decoder .*mlp/down is \(\d+, \d+, \d+\), expected", wider.stderr)


def test_with_our_feed_t5x_trains_what_plum_trains_and_goes_on_where_it_was(finished, tmp_path):
    run_dir, steps = finished[0], 6
    run = RunFiles(str(run_dir))
    optimizer = AdamW(WarmupCosine(peak=2e-3))
    ours = train_phase(
        Phase(TrainingConfig(steps=steps, optimizer=optimizer, log_period=1, tensorboard=False), 8, 64),
        decoder=Decoder(NANO, run.vocabulary.vocab_size),
        records=run.records("cpt"),
        start_token=run.vocabulary.start_id,
        made_from={},
        directory=tmp_path / "plum",
    )
    files = ["--gin_file=gin/t5x/cpt.gin", "--gin_file=gin/t5x/own_feed.gin", "--gin_file=gin/model/cpu_nano.gin"]
    common = [*files, f"--gin.RUN_DIR={text(run_dir)}", "--gin.INIT_SEED=0", "--gin.DROPOUT=0.0"]
    common += [f"--gin.SCHEDULE_STEPS={steps}", "--gin.BATCH_SIZE=8", "--gin.LENGTH=64", "--gin.STATS_PERIOD=1"]
    common += ["--gin.CHECKPOINT_PERIOD=3", "--gin.EVAL_PERIOD=3"]

    def trained_to(directory, last):
        where = f"--gin.MODEL_DIR={text(tmp_path / directory)}"
        done = program("train", *common, where, f"--gin.TRAIN_STEPS={last}")
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    log = trained_to("whole", steps)
    whole = read_checkpoint(tmp_path / "whole" / f"checkpoint_{steps}")
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), ours, whole.params)
    assert max(jax.tree.leaves(differences)) < 5e-5
    losses = [row["loss"] for row in read_metrics(tmp_path / "plum") if "loss" in row]
    theirs = re.findall(r"\[(\d+)\] collection=train .*?\bloss=([\d.]+)", log)
    np.testing.assert_allclose([float(loss) for _, loss in theirs], losses, rtol=1e-5)
    trained_to("stopped", 3)
    trained_to("stopped", steps)
    resumed = read_checkpoint(tmp_path / "stopped" / f"checkpoint_{steps}")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.slots, whole.slots)
