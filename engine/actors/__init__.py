"""Live sessions in memory: one trio task each, and what surrounds it. No network, no SQL.

- `mailbox`, `commands`: what reaches a session, bounded.
- `actor`: the one task that may change a session.
- `stream`, `fanout`, `frame`, `outbox`, `subscriber`, `endings`: how events reach the subscribers.
- `supervisor`, `registry`: how actors come into memory, restart and go.
"""
