"""Training images: TFRecord shards, decoding, batches."""
