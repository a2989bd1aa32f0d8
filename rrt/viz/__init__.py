"""Images of what the programs see and do."""
