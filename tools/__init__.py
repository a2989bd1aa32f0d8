"""Small commands, each runnable as `python tools/NAME.py`."""
