"""The transport that a configuration asks for."""

from __future__ import annotations

from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.transport import Transport


def make_transport(deps: ConversationDeps, config: Config) -> Transport:
    # Imported as they are needed: the reactor can be imported on Linux alone.
    if config.carrier == "reactor":
        from server.realtime.reactor.transport import ReactorTransport

        return ReactorTransport(deps, config)
    from server.realtime.trio_websocket import TrioWebSocketTransport

    return TrioWebSocketTransport(deps, config)
