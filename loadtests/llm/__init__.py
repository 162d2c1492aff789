"""Load for language models: prompts, readers of streams, what they saw, and who draws it."""
