"""The ``c3r`` command: thin over the functions that train.py, eval.py and the other modules call."""
