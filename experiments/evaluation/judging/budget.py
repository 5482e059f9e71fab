"""The limit of an endpoint's cost. Every attempt reserves its highest possible price before it is sent."""

from __future__ import annotations

import asyncio


class CapReachedError(RuntimeError):
    """Another request might exceed the limit."""


class Budget:
    """Requests and money, spent and reserved. For use in one event loop."""

    def __init__(self, max_requests: int, max_cost: float) -> None:
        self.max_requests, self.max_cost = max_requests, max_cost
        self.requests, self.cost = 0, 0.0
        self._reserved: list[float] = []
        self._settled = asyncio.Condition()

    async def reserve(self, cost: float) -> None:
        """Reserve one request of at most `cost`. If it may not fit, wait for reserved ones, which may turn out cheaper.

        Raises:
            CapReachedError: it does not fit, and there is no reserved request to wait for.
        """
        async with self._settled:
            await self._settled.wait_for(lambda: self._fits(cost) or not self._reserved)
            if not self._fits(cost):
                raise CapReachedError
            self._reserved.append(cost)

    async def settle(self, reserved: float, cost: float) -> None:
        """Replace an attempt's reservation by its real cost."""
        async with self._settled:
            self._reserved.remove(reserved)
            self.charge(cost)
            self._settled.notify_all()

    def charge(self, cost: float) -> None:
        """Count one request."""
        self.requests += 1
        self.cost += cost

    def _fits(self, cost: float) -> bool:
        requests = self.requests + len(self._reserved) + 1
        return requests <= self.max_requests and self.cost + sum(self._reserved) + cost <= self.max_cost
