"""Anthropic's Messages API, made from chat/completions or handed to an engine that has it."""
