"""Decisions without I/O: each module is told what happened and answers what to do. Time and chance are arguments."""
