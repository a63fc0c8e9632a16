"""The ``c3r`` command: a thin layer over the functions that train.py, eval.py and other programs call."""
