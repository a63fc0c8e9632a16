"""Reading and writing files safely: whole or not at all, within limits, and without running their content."""
