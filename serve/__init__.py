"""Serve: deployments, replicas and an HTTP proxy on top of actorrt's public names.

The code lies in `serve/` at the top of the repository and is imported as `actorrt.serve` only.
"""

if __name__ != "actorrt.serve":
    # In a checkout the folder can be found as `serve` too, and then two of each class would exist.
    raise ImportError(f"this package is actorrt.serve, not {__name__}: write `from actorrt import serve`")
