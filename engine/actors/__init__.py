"""Live sessions in memory: one trio task each, and what surrounds it. No network, no SQL.

- `commands`, `mailbox`: what reaches a session, bounded.
- `actor`: the one task that may change a session; its docstring names the modules of its parts.
- `delivery`, `messages`, `close_reasons`: how frames reach subscribers, what they say, how connections end.
- `supervisor`, `registry`: how actors come into memory, restart and go.
"""
