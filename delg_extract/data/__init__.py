"""Training images: image lists, TFRecord shards, batches."""
