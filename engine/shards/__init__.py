"""Many nodes, one service: which node runs which session, and how one reaches it from any other.

Pure: the ring, and what a node knows of the others (`membership`). Behind ports (`ports`): Redis (`redis`)
and the node-to-node links (`link`). The rest decides with them where a command goes.
"""
