"""Pictures and pages of what a search found."""
