"""One file a group of workloads; each is run as `python -m loadtests.workloads.NAME SIDE` in the side's environment."""
