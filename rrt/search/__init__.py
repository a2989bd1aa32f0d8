"""Search by global descriptors."""
