"""What an installer was asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..records import record
from .tools import Driver, canonical, driver


@record
class Asked:
    """One requirement of the package, as the engine read it."""

    line: int
    text: str
    hashes: frozenset[str]


@record
class Order:
    """The engine's order, from its ``JOB`` frame."""

    tool: str
    requirements: tuple[Asked, ...]
    source: Path
    """The requirements file as the engine wrote it down: normalized, without anything that it does not allow."""
    index_url: str
    extra_index_urls: tuple[str, ...]
    network: bool
    denial: str
    """Who denied network and how to ask for it; empty when it is allowed."""
    source_builds: bool
    wheelhouses: tuple[Path, ...]
    resolve_only: bool
    workers: int
    """Processes that would have a CPU each."""
    work: Path
    deps: Path = Path("/deps")

    @classmethod
    def of(cls, job: dict[str, Any], root: Path) -> Order:
        install = job["install"]
        return cls(
            tool=install["tool"],
            requirements=tuple(Asked(one["line"], one["text"], frozenset(one["hashes"])) for one in install["requirements"]),
            source=root / "in" / "requirements.txt",
            index_url=install["index_url"],
            extra_index_urls=tuple(install["extra_index_urls"]),
            network=install["network"],
            denial=install["denial"],
            source_builds=install["source_builds"],
            wheelhouses=tuple(Path(one) for one in install["wheelhouses"]),
            resolve_only=install["resolve_only"],
            workers=max(1, round(job["limits"]["cpus"])),
            work=root / "tmp",
        )

    @property
    def driver(self) -> Driver:
        return driver(self)

    @property
    def requested(self) -> frozenset[str]:
        """Canonical names of what the package itself asks for."""
        from pip._vendor.packaging.requirements import Requirement

        return frozenset(canonical(Requirement(one.text).name) for one in self.requirements)

    @property
    def hashes(self) -> dict[str, frozenset[str]] | None:
        """Digests by canonical name; ``None`` when the package gives none, else every package of the lock must be among them."""
        from pip._vendor.packaging.requirements import Requirement

        if not any(one.hashes for one in self.requirements):
            return None
        found: dict[str, frozenset[str]] = {}
        for one in self.requirements:
            name = canonical(Requirement(one.text).name)
            found[name] = found.get(name, frozenset()) | one.hashes
        return found
