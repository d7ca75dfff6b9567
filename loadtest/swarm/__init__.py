"""Thousands of players in one process, on one epoll and without a task for each.

link     one WebSocket connection: connect, handshake, frames
loop     the sockets and the timers
books    what one player was told, in compact form
player   the protocol: join, answer, come back, send again
crowd    all players of one process, paced, with what they measure
process  a process of its own, led over its standard input and output
"""
