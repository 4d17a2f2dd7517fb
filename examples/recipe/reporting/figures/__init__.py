"""The figures of a run, one kind in each file."""
