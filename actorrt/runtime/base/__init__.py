"""What every process needs and that knows no other process: contexts, definitions, options, limits, log lines."""
