"""Which replica a request gets, or that it waits or is refused: the protocol of a policy, and Serve's own.

Pure. The capacity queue is one more, in rooms of its own; `routing/router.py` asks a policy and does what it says.
"""
