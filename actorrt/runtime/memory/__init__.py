"""Shared memory, as it is mapped and written."""
