"""Bytes between two processes: connections, who dials whom, and pipes."""
