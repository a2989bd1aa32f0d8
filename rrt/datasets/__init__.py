"""A folder of store, lists, ground truth and neighbours that fit together."""
