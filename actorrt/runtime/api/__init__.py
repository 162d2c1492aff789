"""The public names, and what begins and ends a session."""
