"""Where batches come from: sources, order, seeds, sharding over ranks, and sample digests."""
