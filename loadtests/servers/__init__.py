"""The same two answers ("ok", and a stream of 100 chunks) behind each HTTP server."""
