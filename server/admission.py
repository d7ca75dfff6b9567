"""Why a node is kept out of a cluster."""

from __future__ import annotations


class NotLetIn(Exception):
    """This node cannot be one of the cluster. The sentence says why, and what to do; `why` is short."""

    why = ""


class NameTaken(NotLetIn):
    """Another node of the cluster has this name, and is alive."""

    def __init__(self, name: str) -> None:
        self.why = "the name is taken"
        super().__init__(
            f"the cluster has a node named {name} already: give this one another name with --node, or stop "
            "that one first"
        )


class Unlike(NotLetIn):
    """What must be the same on all nodes is not. Args: what: that. name: of a node that was there before."""

    def __init__(self, what: str, cluster: str, name: str) -> None:
        self.why = f"{what} is another"
        super().__init__(
            f"{what} of this node is not that of node {name}, which is in the cluster {cluster!r} already: "
            "give all nodes the same, or let this one be of another cluster with --cluster"
        )
