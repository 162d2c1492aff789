"""Bytes and what they mean. Nothing here does I/O, waits, or asks for the time."""
