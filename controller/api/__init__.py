"""The custom resources as values: typed, read-only views of what the API server sent."""
