"""One of several processes that share the shards of all users' lists; `test_offline` starts and kills them.

`python worker_of_many.py DIRECTORY INDEX COUNT SECONDS_PER_SHARD`: a line "<index> made <rows>" on stdout a shard.
"""

import pathlib
import sys
import tempfile
import time

from tiny_world import NUM_USERS, make_world

from plum_jax.retrieval import offline
from plum_jax.retrieval.recommend import Recommender
from plum_jax.retrieval.shards import Worker

if __name__ == "__main__":
    directory, index, count, seconds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as pieces:
        world = make_world(pathlib.Path(pieces))
    search = Recommender.search

    def slow(self, params, prompts, **settings):
        found = search(self, params, prompts, **settings)
        time.sleep(float(seconds))
        print(index, "made", len(prompts.lengths), flush=True)
        return found

    Recommender.search = slow
    offline.recommend_all(
        world.recommender,
        world.params,
        world.prompts,
        directory=directory,
        user_ids=[f"user-{n}" for n in range(NUM_USERS)],
        items_per_user=4,
        users_per_shard=3,
        worker=Worker(int(index), int(count)),
    )
