"""Tables of the study, from the results beside this file: `python experiments/language/table.py`.

Prints the Markdown that README.md shows: words that are true of a film by the codes given, against other films' words,
for films that were trained on and for new ones; and losses by kind of token and by task. Means over seeds with
Student's 95% interval over them; of each seed's films the interval is in its row.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 97.5% of Student's distribution, by the number of values
KINDS = {
    "text": "words",
    "sid_1": "first code",
    "sid_2": "second code",
    "sid_3": "third code",
    "control": "control and end",
    "field": "fields",
}


def main() -> None:
    """Prints the tables."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    names = [name for name in rows[0] if re.fullmatch(r"cpt/(new_)?match_\w+_level_\d", name)]
    print("| films | asked for | codes given | words of the film | of another | difference | seeds above 0 |")
    print(f"|{'---|' * 7}")
    for name in names:
        new, field, level = re.fullmatch(r"cpt/(new_)?match_(\w+)_level_(\d)", name).groups()  # type: ignore[union-attr]
        above = sum(row[f"{name}_lift_low"] > 0 for row in rows)
        cells = (figure(rows, name), figure(rows, f"{name}_shuffled"), figure(rows, f"{name}_lift"))
        films = "never spoken of" if new else "trained on"
        print(f"| {films} | {field} | {level} | {' | '.join(cells)} | {above} of {len(rows)} |")
    print(f"\n| tokens to be predicted | nats a token | share of the tokens |\n|{'---|' * 3}")
    for kind, said in KINDS.items():
        if f"cpt/loss_{kind}" in rows[0]:
            print(f"| {said} | {figure(rows, f'cpt/loss_{kind}')} | {figure(rows, f'cpt/share_{kind}')} |")
    print(f"| all | {figure(rows, 'cpt/loss')} | 1 |")
    print(f"\n| task | after CPT | after retrieval |\n|{'---|' * 3}")
    for name in [name for name in rows[0] if name.startswith("cpt/loss_task_")]:
        after = figure(rows, name.replace("cpt/", "retrieval/", 1))
        print(f"| {name.removeprefix('cpt/loss_task_')} | {figure(rows, name)} | {after} |")


def figure(rows: Sequence[Row], name: str) -> str:
    """Mean over seeds, ± half of Student's 95% interval."""
    values = np.array([row[name] for row in rows])
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = STUDENT[len(values)] * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
