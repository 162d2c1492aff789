"""The capacity queue and the policies beside it, replayed on public traces in virtual time.

traces.py, servegen.py, sessions.py   where requests come from; sampling.py makes the requests of one run of them
engine_model.py, kv_blocks.py, engine.py   an engine with continuous batching, in closed form between events
policies/       who decides which replica runs a request: a file for each idea
fleet.py        the event loop: arrivals, engines, failures
measures.py, fairness.py, intervals.py   what is measured of a run, and of several
runs.py, pages.py   many runs in processes, where saturation lies, and the tables of the docs
table.py, plots.py, fit.py, command.py   what is shown, an engine model fitted to a real server, the command
ledger_picture.py   one line's ledger over time, for the docs
"""
