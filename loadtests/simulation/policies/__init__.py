"""Who decides which replica runs a request: a file for each idea, and catalogue.py with the names of all."""
