"""M6-Rec (arXiv 2205.08084): user behaviour as plain text, read and written by one language model without item ids."""
