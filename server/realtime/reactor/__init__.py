"""The fast transport: one task that waits for all sockets at once, on Linux.

- `loop`: epoll, rounds bounded in time, errands; `wheel`: what is due when, in constant time.
- `listener`: accepts. `arrival` with `head`: up to the end of the handshake. `connection` with `backlog`: an
  open WebSocket. `parting`: the last words. A socket is looked after by one of these at a time.
- `port`: what they share.
- `transport`: puts them together.
"""
