"""A stream that survives its replica: the rest of an answer is asked of another one, and the client sees one answer.

Each file but `streams` decides and does nothing else: what was answered so far, what to ask for the rest, and how the
events of the rest are made to follow those that the client has.
"""
