"""From requirements to a lock: out of the wheelhouse alone where that will do, else from the index, if network is allowed."""

from __future__ import annotations

from typing import Literal

from ..records import record
from .lock import Locked, read_pylock, read_report
from .order import Order
from .tools import Log


@record
class Resolved:
    """A resolution."""

    source: Literal["wheelhouse", "index"]
    locked: list[Locked]


def resolve(order: Order, log: Log) -> Resolved:
    """Resolves; raises :class:`~.tools.Refused` with a diagnosis."""
    from .diagnose import explain_resolution

    if order.wheelhouses:
        log.line("resolving from the wheelhouse")
        done, said = order.driver.resolve(True, log)
        if done:
            return Resolved("wheelhouse", _read(order))
        if not order.network:
            raise explain_resolution(order, said)
    if not order.network:
        raise explain_resolution(order, "")
    log.line(f"resolving from the index with {order.tool}")
    done, said = order.driver.resolve(False, log)
    if not done:
        raise explain_resolution(order, said)
    return Resolved("index", _read(order))


def _read(order: Order) -> list[Locked]:
    path = order.driver.resolution()
    if order.tool == "uv":
        return read_pylock(path, order.source_builds, order.hashes)
    return read_report(path, order.hashes)
