"""The realtime edge: WebSocket on one side, sessions on the other.

- `handshake`, `protocol`: who may come in, and what clients say. Pure.
- `conversation`: what is said on one connection, synchronous, the same for every transport.
- `transport`: what transports offer. `trio_websocket` with `client_stream` is the portable one.
"""
