"""Faults on purpose, under load, and the proof that the ledgers still agree.

plan      which faults, when and for how long: a pure function of a seed
inject    one fault, from its beginning to the end of its clean-up
proxy     the way between node and database, which can be slow, silent or cut
waves     sessions and players that come and go all the time
timeline  acks over time: what a fault costs the players
proof     the ledgers of all waves against the database
run       all of it together
report    the results
"""
