"""One trainer for everything: state, batches, checkpoints, optimizer, metrics, loop."""
