"""Tables and pictures of the scaling studies in README.md: `python experiments/scaling/tables.py`.

Writes what stands between `<!-- NAME -->` and `<!-- end of NAME -->` anew, where NAME is a study's directory, and the
pictures in that directory. Run it after gin/run/study_fit.gin and gin/run/study_score.gin.
"""

from __future__ import annotations

import pathlib
import re
import sys

from plum_jax.scaling import study_tables
from plum_jax.scaling.headlines import headlines, scope
from plum_jax.scaling.plots import gallery
from plum_jax.scaling.study_results import StudyResults, read_study_results

HERE = pathlib.Path(__file__).parent
PICTURES = ("iso_flop_loss", "optimum", "loss", "recall", "held_out")


def write_tables(readme: pathlib.Path) -> None:
    """Writes the tables and pictures of every study that the README has markers for.

    Raises:
      ValueError: a marker without its end.
    """
    text = readme.read_text()
    for name in re.findall(r"^<!-- (\w+) -->$", text, re.MULTILINE):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        if end not in rest:
            raise ValueError(f"{readme} has {begin.strip()} but no {end}")
        results = read_study_results(readme.parent / name)
        text = f"{head}{begin}\n{section(results)}\n{write_pictures(results)}\n{end}{rest.partition(end)[2]}"
    readme.write_text(text)


def section(results: StudyResults) -> str:
    """What a study says, and its tables, in Markdown."""
    found = headlines(results)
    parts = [f"{scope(results)}.", "\n".join(f"- {sentence}" for sentence in found.said)]
    if found.not_identified:
        parts.append(
            "Not identified, or missing:\n\n" + "\n".join(f"- {sentence}" for sentence in found.not_identified)
        )
    tables = (
        study_tables.forecast_table(results),
        study_tables.methods_table(results),
        study_tables.parabolas_table(results),
        study_tables.parabolas_table(results, "recall"),
        study_tables.forms_table(results),
        study_tables.sensitivity_table(results),
        study_tables.failures_table(results),
        study_tables.ledger_table(results),
    )
    parts += [study_tables.markdown(table) for table in tables if table.rows]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_pictures(results: StudyResults) -> str:
    """Writes the pictures for light and dark pages, and returns the Markdown that shows them."""
    shown = []
    for picture in gallery.pictures(results):
        if picture.name in PICTURES and picture.figure is not None:
            path = pathlib.Path(results.directory) / f"{picture.name}.svg"
            path.write_text(gallery.as_svg(picture))
            shown.append(f"![{picture.caption}]({results.directory.name}/{path.name})\n")
    return "\n".join(shown)


if __name__ == "__main__":
    write_tables(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "README.md")
