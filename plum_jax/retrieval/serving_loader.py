"""Serves an export of plum_jax. A copy lies in every export as loader.py; imports JAX and numpy, nothing else.

    server = Server("runs/mine/serving")
    prompt = server.prompt(["item-3", "item-8"])  # or token ids of your own making
    server.recommend([prompt], k=10, seen=[["item-3", "item-8"]])

From the command line, a JSON line a user on stdin ({"history": [item ids]} or {"prompt": [token ids]}, and "seen":
[item ids] where wanted), a JSON line of lists [item id, score] on stdout:

    python loader.py runs/mine/serving < users.jsonl
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

FORMAT = 1
LARGEST_BATCH = 64


class ServingError(ValueError):
    """The export is not whole, not one that this loader reads, or is asked for what it cannot do."""


class Server:
    """An export in memory.

    Attributes:
      facts: what `serving.json` says.
    """

    def __init__(self, directory: str | pathlib.Path) -> None:
        """Reads an export and checks every file against its checksum.

        Raises:
          ServingError: a file is missing or changed, or the export has another format.
        """
        self._directory = pathlib.Path(directory)
        path = self._directory / "serving.json"
        if not path.exists():
            raise ServingError(f"there is no {path}: expected a directory that gin/run/export_serving.gin wrote")
        self.facts: dict[str, Any] = json.loads(path.read_text())
        if self.facts.get("format") != FORMAT:
            raise ServingError(f"{path} has format {self.facts.get('format')}, this loader reads {FORMAT}")
        for name, checksum in self.facts["files"].items():
            self._check_file(name, checksum)
        self._parameters = self._arrays("parameters")
        self._trie = self._arrays("trie")
        with np.load(self._directory / "items.npz") as items:
            self._sids, self._offsets, self._items = items["sids"], items["offsets"], items["items"]
            names, ends = items["item_id_bytes"].tobytes(), items["item_id_ends"].tolist()
        starts = [0, *ends[:-1]]
        self._item_ids = [names[start:end].decode() for start, end in zip(starts, ends, strict=True)]
        self._number = {item_id: number for number, item_id in enumerate(self._item_ids)}
        self._row = {sid.tobytes(): row for row, sid in enumerate(self._sids)}

    def prompt(self, history: Sequence[str]) -> list[int]:
        """Token ids of a user's history (item ids, oldest first) as in training; the newest alone where it is too long.

        Raises:
          ServingError: the model's prompts say more than which items were watched, or an item is not in the catalogue.
        """
        recipe = self.facts["prompt"]
        if recipe is None:
            raise ServingError(
                "this model's prompts have more than Semantic IDs in them: render them with the model's own templates, "
                "and give token ids"
            )
        if recipe.get("items"):  # one position an item, of which nothing but its number is read
            return self._numbers(history)[-recipe["history_length"] :]
        tokens = list(recipe["before"])
        sid_of_item = self._sid_of_item
        for item in self._numbers(history)[-recipe["history_length"] :]:
            tokens += (self._sids[sid_of_item[item]] + np.array(self.facts["sid_offsets"])).tolist()
        return tokens + list(recipe["after"])

    def search(
        self, prompts: Sequence[Sequence[int]], seen: Sequence[Sequence[str]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Beam search after each prompt, among the items that are not in `seen`.

        Returns:
          codes int32 [users, beams, levels] and log-probabilities float32 [users, beams], best first; -1 and -inf where
          fewer SIDs exist.

        Raises:
          ServingError: a prompt is too long, or has an id that the model does not know; or `seen` has an item that the
            catalogue has not.
        """
        self._check_prompts(prompts)
        if seen is not None and len(seen) != len(prompts):
            raise ServingError(f"expected seen items for each of {len(prompts)} prompts, got {len(seen)}")
        excluded = [self._excluded(self._numbers(items)) for items in seen or [[]] * len(prompts)]
        found = [
            self._search_batch(prompts[start : start + LARGEST_BATCH], excluded[start : start + LARGEST_BATCH])
            for start in range(0, len(prompts), LARGEST_BATCH)
        ]
        codes, log_probs = zip(*found, strict=True)
        return np.concatenate(codes), np.concatenate(log_probs)

    def _search_batch(
        self, prompts: Sequence[Sequence[int]], excluded: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        # A shape that was not there before is compiled: few shapes, filled up with users of an empty prompt.
        users, width = _power_of_two(len(prompts)), _power_of_two(max(16, *(len(codes) for codes, _ in excluded)))
        length = next(n for n in self.facts["lengths"] if n >= max(map(len, prompts)))
        tokens, lengths = np.zeros((users, length), np.int32), np.zeros(users, np.int32)
        codes, prefixes = np.zeros((users, width, self._sids.shape[1]), np.int32), np.zeros((users, width), np.int32)
        for user, prompt in enumerate(prompts):
            tokens[user, : len(prompt)], lengths[user] = prompt, len(prompt)
            rows = len(excluded[user][0])
            codes[user, :rows], prefixes[user, :rows] = excluded[user]
        program = self._program(length)
        found = jax.device_get(program(self._parameters, self._trie, tokens, lengths, codes, prefixes))
        return found[0][: len(prompts)], found[1][: len(prompts)]

    def _excluded(self, items: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """What a search without these items must not take: SIDs [e, levels] and how many codes of each [e].

        A SID is left out where all its items are; then so is the shortest prefix under which nothing else is left.
        """
        rows, counts = np.unique(self._sid_of_item[np.unique(np.array(items, np.int64))], return_counts=True)
        rows = rows[counts == (self._offsets[rows + 1] - self._offsets[rows])]
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        codes = self._sids[rows]
        prefixes = [
            1 + max(self._shared(row, neighbour) for neighbour in (run[0] - 1, run[-1] + 1))
            for run in runs
            for row in run
        ]
        return codes, np.array(prefixes, np.int32)

    def _shared(self, row: int, other: int) -> int:
        """Codes that two of the sorted SIDs begin with together; none with a row that there is not."""
        if not 0 <= other < len(self._sids):
            return 0
        return int(np.logical_and.accumulate(self._sids[row] == self._sids[other]).sum())

    def recommend(
        self, prompts: Sequence[Sequence[int]], k: int = 10, seen: Sequence[Sequence[str]] | None = None
    ) -> list[list[tuple[str, float]]]:
        """The first k (item id, log-probability of its Semantic ID) after each prompt, without the items in `seen`.

        A list is shorter where there are no more items, or the beams are fewer than k.

        Raises:
          ServingError: see `search`.
        """
        if not prompts:
            return []
        codes, log_probs = self.search(prompts, seen)
        left_out = [set(self._numbers(items)) for items in seen or [[]] * len(prompts)]
        lists = []
        for user, excluded in enumerate(left_out):
            items: list[tuple[str, float]] = []
            for sid, score in zip(codes[user], log_probs[user].tolist(), strict=True):
                row = self._row.get(sid.tobytes())
                if row is None or len(items) >= k:
                    break  # beams that were not filled come last
                of_sid = self._items[self._offsets[row] : self._offsets[row + 1]].tolist()
                items += [(self._item_ids[item], score) for item in of_sid if item not in excluded]
            lists.append(items[:k])
        return lists

    @functools.cached_property
    def _sid_of_item(self) -> np.ndarray:
        rows = np.empty(len(self._items), np.int64)
        rows[self._items] = np.repeat(np.arange(len(self._sids)), np.diff(self._offsets))
        return rows

    @functools.cache  # noqa: B019, a server lives as long as its process
    def _program(self, length: int) -> Any:
        exported = export.deserialize(bytearray((self._directory / f"search_{length}.stablehlo").read_bytes()))
        if jax.default_backend() not in exported.platforms:
            raise ServingError(f"the export is for {exported.platforms}, this process runs on {jax.default_backend()}")
        return jax.jit(exported.call)

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        longest, vocab_size = self.facts["lengths"][-1], self.facts["vocab_size"]
        for number, prompt in enumerate(prompts):
            if len(prompt) > longest:
                raise ServingError(f"prompt {number} has {len(prompt)} tokens, this export takes at most {longest}")
            wrong = [token for token in prompt if not 0 <= token < vocab_size]
            if wrong:
                raise ServingError(f"prompt {number} has token {wrong[0]}, expected ids from 0 to {vocab_size - 1}")

    def _numbers(self, item_ids: Sequence[str]) -> list[int]:
        unknown = [item_id for item_id in item_ids if item_id not in self._number]
        if unknown:
            raise ServingError(f"item {unknown[0]!r} is not in the catalogue of this export")
        return [self._number[item_id] for item_id in item_ids]

    def _check_file(self, name: str, checksum: str) -> None:
        path = self._directory / name
        if not path.exists():
            raise ServingError(f"{path} is missing: export again")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checksum:
            raise ServingError(f"{path} was changed after it was written (sha256 {found[:12]}...): export again")

    def _arrays(self, name: str) -> list[jax.Array]:
        """Arrays on the device, in order; types that numpy's files do not know were stored as their bits."""
        with np.load(self._directory / f"{name}.npz") as stored:
            dtypes = self.facts["dtypes"][name]
            return [jnp.asarray(stored[f"{n}"].view(jnp.dtype(dtype))) for n, dtype in enumerate(dtypes)]


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def main() -> None:
    """JSON lines in, JSON lines out, a batch at a time."""
    if len(sys.argv) != 2:
        raise SystemExit("expected one argument, the directory of the export")
    server = Server(sys.argv[1])
    users = [json.loads(line) for line in sys.stdin if line.strip()]
    for start in range(0, len(users), LARGEST_BATCH):
        batch = users[start : start + LARGEST_BATCH]
        prompts = [user["prompt"] if "prompt" in user else server.prompt(user["history"]) for user in batch]
        for items in server.recommend(prompts, seen=[user.get("seen", []) for user in batch]):
            print(json.dumps(items), flush=True)


if __name__ == "__main__":
    try:
        main()
    except ServingError as error:
        raise SystemExit(f"loader.py: {error}") from None
