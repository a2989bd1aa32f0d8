"""A module a command: it reads options, calls one function and prints."""
