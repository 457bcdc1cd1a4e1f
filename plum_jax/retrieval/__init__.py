"""From a trained decoder to recommended items: trie, beam search, metrics, evaluator, baselines."""
