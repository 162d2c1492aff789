"""The Batch API of OpenAI's: files of requests that are answered when there is room, and survive whoever dies."""
