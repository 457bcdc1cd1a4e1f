"""Programs compiled for TPU pods on a machine without a TPU, and what they will cost."""
