"""Batch: what one `Engine.apply` has collected: what must be looked at again, and who is told what in the end.

Never here: the rules of what must be looked at (`engine.py`).
"""

from __future__ import annotations

from snapshot.cache import type_url
from snapshot.cache.snapshot import Changes
from snapshot.engine.catalog import Service
from snapshot.engine.node import Names, Node, SharedEndpoints, merged
from snapshot.engine.world import Failure
from snapshot.model.meta import ProxyKey, Resource


class Batch:
    """Collected marks; dictionaries without values stand for sets that keep their order.

    `meshes` were touched. `dataplanes` may contribute something else now. `policies` are the versions that policy
    changes are between, by mesh. `nodes` may have to be built again. `stale` assignments are shared by nodes that know
    them, `fresh` ones are new to all their users, who are told by their own `news`; both with their service.
    """

    __slots__ = (
        "dataplanes",
        "endpoints_built",
        "facts_read",
        "failures",
        "fresh",
        "meshes",
        "news",
        "nodes",
        "policies",
        "proxies_built",
        "proxies_routed",
        "stale",
    )

    def __init__(self) -> None:
        self.meshes: dict[str, None] = {}
        self.dataplanes: dict[ProxyKey, None] = {}
        self.policies: dict[str, list[Resource]] = {}
        self.nodes: dict[Node, None] = {}
        self.stale: dict[SharedEndpoints, Service] = {}
        self.fresh: dict[SharedEndpoints, Service] = {}
        self.news: dict[Node, Names] = {}
        self.failures: list[Failure] = []
        self.proxies_routed = 0
        self.proxies_built = 0
        self.endpoints_built = 0
        self.facts_read = 0

    def tell(self, node: Node, names: Names) -> None:
        """`names` changed for `node`; called once for each node of a batch."""
        if any(names.values()):
            self.news[node] = names

    def changes(self, rebuilt: list[SharedEndpoints]) -> dict[ProxyKey, Changes]:
        """The news of each node, with those about the `rebuilt` assignments. Equal news are one object."""
        told = {node.key: Changes(names) for node, names in self.news.items()}
        made: dict[tuple[int, str], tuple[Changes, Changes]] = {}  # the first is kept so that its id stays its own
        nothing = Changes()
        for shared in rebuilt:
            names = {type_url.ENDPOINT: frozenset((shared.name,))}
            for user in shared.users:
                before = told.get(user.key, nothing)
                if (known := made.get((id(before), shared.name))) is None:
                    known = made[id(before), shared.name] = before, Changes(merged(before.names, names))
                told[user.key] = known[1]
        return told
