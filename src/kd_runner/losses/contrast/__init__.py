"""Parts of contrastive losses: memories, negatives, the noise-contrastive term, pooling."""
