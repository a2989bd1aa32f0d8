"""Other people's files as plain values."""
