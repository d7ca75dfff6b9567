"""Thousands of players in one process, on one epoll and without a task for each.

connection      one WebSocket connection: connect, handshake, frames
loop            the sockets and the timers
compact_ledger  what one player was told, in compact form
fault_log       mistakes of the server that players have seen
player          the protocol: join, answer, come back, send again
crowd           all players of one process, paced, with their measurements
process         a process of its own, led over its standard input and output
"""
