"""The HTTP API as types: bodies, query strings and parts of paths."""
