"""The version, where the smallest import finds it."""

__version__ = "0.1.0"
