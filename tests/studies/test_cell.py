"""One cell, trained for real: its row, that it is made once, and what becomes of a run that diverges."""

import dataclasses
import json
import math

import pytest
from small_study import study

from plum_jax.feeds.batches import TokenBatches
from plum_jax.studies import records
from plum_jax.studies.cell import run_cell
from plum_jax.studies.places import StudyError
from plum_jax.studies.rules import PowerRule
from plum_jax.studies.shared import shared
from plum_jax.studies.solve import cells_of

CELL = "b00-d008x1-s0"


@pytest.fixture(scope="module")
def done(study_directory):
    """A study with one finished cell: (study, directory, row)."""
    directory, stated = study_directory(), study(learning_rate_factors=(1.0, 1e9))
    return stated, directory, run_cell(stated, CELL, directory)


def test_the_row_says_what_was_trained_and_how_well(done):
    stated, directory, row = done
    common = shared(stated, directory)
    (cell,) = [cell for cell in cells_of(stated, common.data) if cell.cell_id == CELL]
    assert (row["name"], row["status"], row["reason"], row["study"]) == (CELL, "finished", "", "small")
    assert row["budget"] == 8e8 and row["flops"] == pytest.approx(8e8, rel=0.01)
    assert (row["steps"], row["batch_tokens"], row["seed"]) == (cell.steps, 8 * 64, 0)
    assert row["learning_rate"] == 1e-2 and not row["held_out"]
    assert row["users"] == 40 and row["hits@5"] == round(row["recall@5"] * 40)
    # Better than an even guess among the codes of the three levels, and not better than the simulator allows.
    assert row["best_possible_loss"] < row["loss"] < math.log(common.data.vocab_size) / 2
    assert row["recall@5"] <= row["best_possible_recall@5"] + 4 * row["recall@5_se"]
    assert row["train_loss"] > 0 and row["wall_seconds"] >= row["train_seconds"] > 0
    levels = [row[f"loss_level_{level}"] for level in (1, 2, 3)]
    assert row["loss"] == pytest.approx(sum(levels) / 3)
    assert json.loads(records.record_path(directory, CELL).read_text()) == row


def test_its_tokens_are_those_of_its_batches(done):
    stated, directory, row = done
    common = shared(stated, directory)
    trial = stated.system.trial(records.shared_directory(directory), None)
    feed = TokenBatches(trial.records, batch_size=8, length=64, seed=0, start_token=trial.vocabulary.start_id)
    batches = feed.make_iterator()
    assert row["tokens"] == sum(int((next(batches)["decoder_loss_weights"] > 0).sum()) for _ in range(row["steps"]))
    assert row["epochs"] == pytest.approx(row["tokens"] / common.data.unique_tokens)


def test_a_finished_cell_is_not_run_again(done):
    stated, directory, row = done
    altered = dict(row, loss=-1.0)
    records.write_record(directory, altered)
    assert run_cell(stated, CELL, directory) == altered
    records.write_record(directory, row)


def test_a_run_that_diverges_is_a_row_with_its_reason(done):
    stated, directory, _ = done
    row = run_cell(stated, f"{CELL}-lr1e+09", directory)
    assert row["status"] == "diverged"
    assert "loss is" in row["reason"] and "loss" not in row and "recall@5" not in row
    assert row["learning_rate_factor"] == 1e9 and row["parameters"] > 0
    assert row["flops_spent"] < row["flops"], "it did not come to its end"


def test_a_cell_that_is_not_there_is_named(done):
    stated, directory, _ = done
    with pytest.raises(StudyError, match="study small has no cell 'b09-d008x1-s0'; it has 8: b00-d008x1-s0"):
        run_cell(stated, "b09-d008x1-s0", directory)


def test_what_is_shared_is_made_once_and_again_when_its_pipeline_changes(done):
    stated, directory, _ = done
    first = shared(stated, directory)
    records_file = records.shared_directory(directory) / "records" / "retrieval" / "manifest.json"
    made = records_file.stat().mtime
    assert shared(dataclasses.replace(stated, learning_rate=PowerRule(1.0)), directory).data == first.data
    assert records_file.stat().mtime == made
    assert shared(dataclasses.replace(stated, evaluation_users=20), directory).data.evaluation_users == 20
    assert records_file.stat().mtime == made, "fewer users are no other records"
