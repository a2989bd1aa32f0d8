"""Training of DELG: losses, steps, checkpoints."""
