"""SeqIO tasks and mixtures: a corpus turned into token sequences."""
