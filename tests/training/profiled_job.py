"""A job for gin files of tests: the small run, which may be told to end in its evaluation."""

import os
import signal

import small_run


def train(model_dir, config, terminated=False):
    """The small run with figures of speed; `terminated`: its evaluation sends SIGTERM."""
    evaluators = {"test": lambda params: os.kill(os.getpid(), signal.SIGTERM)} if terminated else {}
    small_run.train(model_dir, config, step_flops=1e6, tokens_per_step=8, evaluators=evaluators)
