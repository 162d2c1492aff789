"""One copy of a deployment's code in a process of its own, and what is done with each request that it gets.

`replica` is the actor, `user_code` the user's callable, `reply` and `websocket_run` answer HTTP. `lifecycle` is the
table of a replica's life, which the controller drives.
"""
