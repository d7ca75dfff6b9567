"""The fast transport: one task that waits for all sockets at once, on Linux.

- `loop`: epoll, rounds bounded in time, callbacks. `timer_wheel`: timers, set and moved in constant time.
- `listener` accepts. `opening` with `request` reads up to the end of the handshake; `upgrade` answers it.
- `connection` with `backlog` is an open WebSocket, `exchange` a connection that speaks plain HTTP, and
  `event_stream` an open event stream. `client_connection` is the half of them that sends.
- `lingering_close` ends a connection. Each socket has exactly one of these as its handler.
- `port`: shared by the handlers of one port.
- `transport`: puts them together.
"""
