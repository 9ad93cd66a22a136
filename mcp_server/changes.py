"""What a client is told without asking: that the list of resources is another one, that a resource it subscribed to has changed.

    2025-11-25 and before   resources/subscribe, resources/unsubscribe; who has listed resources or skills is told of a changed list
    2026-07-28              subscriptions/listen, which names what it wants to hear

Files change beneath us without telling, runs and notes change through any connection. So one watcher looks at what somebody listens
for, and compares; it is there only as long as somebody listens.

Guarantees
1. A change after a subscription was acknowledged is told, unless it was changed back before the next look.
2. Looks are `WATCH_S` apart, or further where one takes long: at most a hundredth of the time goes into them.
3. A message says that something changed, never what: the client reads it again, with its own rights.
4. What `sandbox://` names never changes and is not looked at.

Not here: progress of a call (server.py). Nothing is written; subscriptions end with their connection.
"""

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import mcp_types as types
from agent_kernel import Kernel
from agent_kernel.base.errors import KernelError, LimitExceeded
from agent_kernel.base.policy import Grants
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from . import resources

__all__ = ["Changes"]

WATCH_S = 2.0
SUBSCRIPTIONS_MAX = 256
LISTS = frozenset({"resources/list", "skills/list"})
Context = ServerRequestContext[Any, Any]


class Changes:
    def __init__(self, kernel: Kernel, grants: Grants) -> None:
        self._kernel = kernel
        self._grants = grants
        self._bus = InMemorySubscriptionBus()
        self._deliver = ListenHandler(self._bus)
        self._connections: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()
        """Of the older protocol: who has listed or subscribed, and to what."""
        self._streams: dict[object, frozenset[str]] = {}
        """Of the newer one: what each open stream listens for."""
        self._seen: dict[str, bytes] = {}
        """Of each resource that somebody subscribed to, the digest of what was there."""
        self._served: Sequence[Any] = ()
        self._watching = False

    def serve(self, server: Server[Any]) -> None:
        server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, self.subscribe)
        server.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, self.unsubscribe)
        server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, self.listen)
        server.middleware.append(self._notice)

    async def _notice(self, ctx: Context, call_next: Any) -> Any:
        if ctx.method in LISTS and ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            await self._watch_for(ctx)
        result = await call_next(ctx)
        if ctx.method == "initialize":
            result["capabilities"]["resources"]["listChanged"] = True
        return result

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        uri = str(params.uri)
        wanted = await self._watch_for(ctx)
        if uri not in wanted and sum(map(len, self._connections.values())) >= SUBSCRIPTIONS_MAX:
            raise LimitExceeded(
                "limit.exceeded", f"{SUBSCRIPTIONS_MAX} resources are watched already. Unsubscribe some."
            )
        await resources.read(self._kernel, uri, grants=self._grants)
        await self._remember(uri)
        wanted.add(uri)
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        (await self._watch_for(ctx)).discard(str(params.uri))
        return types.EmptyResult()

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        uris = frozenset(map(str, params.notifications.resource_subscriptions or ()))
        if len(uris) > SUBSCRIPTIONS_MAX:
            raise LimitExceeded("limit.exceeded", f"{len(uris)} resources; one stream listens for {SUBSCRIPTIONS_MAX}.")
        stream = object()
        self._streams[stream] = uris
        try:
            for uri in uris:
                await self._remember(uri)
            await self._start()
            return await self._deliver(ctx, params)
        finally:
            del self._streams[stream]

    async def _watch_for(self, ctx: Context) -> set[str]:
        """What this connection subscribed to; from now on it is told of changes."""
        wanted = self._connections.setdefault(ctx.session._connection, set())  # noqa: SLF001  the SDK shows a connection by no other name
        await self._start()
        return wanted

    async def _start(self) -> None:
        if not self._watching:
            self._watching = True
            self._served = await self._kernel.skills.served(grants=self._grants)
            self._kernel.scheduler.spawn(self._watch(), "changes")

    async def _watch(self) -> None:
        clock = self._kernel.ports.clock
        pause = WATCH_S
        try:
            while self._connections or self._streams:
                await clock.sleep(pause)
                began = clock.monotonic()
                await self._look()
                pause = max(WATCH_S, 100 * (clock.monotonic() - began))
        finally:
            self._watching = False
            self._seen.clear()

    async def _look(self) -> None:
        served = await self._kernel.skills.served(grants=self._grants)
        if served != self._served:
            self._served = served
            for connection in list(self._connections):
                await connection.send_resource_list_changed()
            await self._bus.publish(ResourcesListChanged())
        wanted = set().union(*self._connections.values(), *self._streams.values())
        for uri in list(self._seen):
            if uri not in wanted:
                del self._seen[uri]
                continue
            before, self._seen[uri] = self._seen[uri], await self._digest(uri)
            if self._seen[uri] == before:
                continue
            for connection, uris in list(self._connections.items()):
                if uri in uris:
                    await connection.send_resource_updated(uri)
            await self._bus.publish(ResourceUpdated(uri))

    async def _remember(self, uri: str) -> None:
        if uri not in self._seen:
            self._seen[uri] = await self._digest(uri)

    async def _digest(self, uri: str) -> bytes:
        """Empty while there is nothing at the uri."""
        if uri.startswith("sandbox://"):
            return b""
        try:
            content = await resources.read(self._kernel, uri, grants=self._grants)
        except KernelError:
            return b""
        return hashlib.sha256(content.data).digest()
