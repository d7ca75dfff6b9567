"""A cluster in one process, under a seed: many nodes, clients that play, and faults. See
docs/decisions/0031-simulation.md."""
