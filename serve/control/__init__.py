"""What is wanted and what runs: the controller, and what it decides and does about the difference.

`reconcile` and `history` decide, `deployments` and `replica_calls` act; `kept` is what one controller leaves to the
next, `statuses` what people are shown.
"""
