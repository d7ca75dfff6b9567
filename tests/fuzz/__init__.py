"""Whatever a stranger, a row, another node or the bus may say, said to real nodes: `python -m tests.fuzz`."""
