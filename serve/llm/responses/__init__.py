"""OpenAI's Responses API: made from chat/completions, with the state that its clients leave to the server."""
