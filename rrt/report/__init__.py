"""Pages and figures that explain results."""
