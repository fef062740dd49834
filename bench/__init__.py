"""Speed and memory of aiodicom beside its peers, in one run: `uv run python -m bench`."""
