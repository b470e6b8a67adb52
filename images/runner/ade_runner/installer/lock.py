"""The lock: for every package one file, named by version and digest."""

from __future__ import annotations

import json
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..records import record
from .tools import Refused, canonical


@record
class Locked:
    """One package of the lock."""

    name: str
    version: str
    filename: str
    sha256: str
    url: str

    def record(self, requested: frozenset[str]) -> dict[str, Any]:
        return {
            "name": self.name, "version": self.version, "sha256": self.sha256,
            "requested": canonical(self.name) in requested, "filename": self.filename, "url": self.url,
        }  # fmt: skip


def lock_text(locked: list[Locked]) -> str:
    """The lock as a requirements file with hashes."""
    return "".join(f"{one.name}=={one.version} \\\n    --hash=sha256:{one.sha256}\n" for one in locked)


def pylock(locked: list[Locked]) -> str | None:
    """The lock with the addresses of its files (PEP 751), for a tool that need not ask the index again; ``None`` where not every
    file is a wheel on a server."""
    if not all(one.filename.endswith(".whl") and one.url.startswith(("https://", "http://")) for one in locked):
        return None
    text = 'lock-version = "1.0"\ncreated-by = "ade"\n'
    for one in locked:
        # Strings of JSON are strings of TOML.
        name, version, file, url, digest = (json.dumps(part) for part in (one.name, one.version, one.filename, one.url, one.sha256))
        text += f"\n[[packages]]\nname = {name}\nversion = {version}\n"
        text += f"wheels = [{{ name = {file}, url = {url}, hashes = {{ sha256 = {digest} }} }}]\n"
    return text


Hashes = dict[str, frozenset[str]] | None


def read_pylock(path: Path, source_builds: bool, hashes: Hashes) -> list[Locked]:
    """What uv resolved (PEP 751), narrowed to the one file per package that fits this interpreter and platform best."""
    packages = tomllib.loads(path.read_text(encoding="utf-8")).get("packages", [])
    return sorted((_locked(package, source_builds, hashes) for package in packages), key=lambda one: one.name)


def read_report(path: Path, hashes: Hashes) -> list[Locked]:
    """What pip resolved (https://pip.pypa.io/en/stable/reference/installation-report/)."""
    locked = []
    for item in json.loads(path.read_text(encoding="utf-8")).get("install", []):
        metadata, download = item["metadata"], item["download_info"]
        name, url = canonical(metadata["name"]), download["url"]
        digest = download.get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise _no_digest(name)
        if digest not in _allowed(name, hashes, {digest}):
            raise _mismatch(name, metadata["version"])
        locked.append(Locked(name, metadata["version"], _filename(url), digest, url))
    return sorted(locked, key=lambda one: one.name)


def _locked(package: dict[str, Any], source_builds: bool, hashes: Hashes) -> Locked:
    from pip._vendor.packaging.tags import sys_tags
    from pip._vendor.packaging.utils import InvalidWheelFilename, parse_wheel_filename

    name, version = canonical(package["name"]), str(package.get("version", ""))
    rank = {tag: at for at, tag in enumerate(sys_tags())}
    best: tuple[int, dict[str, Any]] | None = None
    wheels = package.get("wheels", [])
    if hashes is not None:
        allowed = _allowed(name, hashes, set())
        known = [wheel for wheel in wheels if _digest_of(wheel) in allowed]
        sdist = package.get("sdist")
        if not known and not (source_builds and sdist and _digest_of(sdist) in allowed):
            raise _mismatch(name, version)
        wheels = known
    for wheel in wheels:
        try:
            tags = parse_wheel_filename(_file_of(wheel))[3]
        except InvalidWheelFilename:
            continue
        at = min((rank[tag] for tag in tags if tag in rank), default=None)
        if at is not None and (best is None or at < best[0]):
            best = at, wheel
    file = best[1] if best else package.get("sdist") if source_builds else None
    if file is None or not version:
        raise Refused(
            "dependency_unavailable", "no_wheel",
            f"{name} {version} has no wheel for this image's Python and platform", requirement=f"{name}=={version}",
        )  # fmt: skip
    digest = _digest_of(file)
    if digest is None:
        raise _no_digest(name)
    return Locked(name, version, _file_of(file), digest, str(file.get("url", "")))


def _digest_of(file: dict[str, Any]) -> str | None:
    """The digest that the index gives for a file; of one in a wheelhouse, its own."""
    digest: str | None = file.get("hashes", {}).get("sha256")
    if digest is None and "path" in file:
        return _digest(Path(file["path"]))
    if digest is None and str(file.get("url", "")).startswith("file:"):
        return _digest(Path(unquote(urlsplit(file["url"]).path)))
    return digest


def _allowed(name: str, hashes: Hashes, otherwise: set[str]) -> frozenset[str]:
    if hashes is None:
        return frozenset(otherwise)
    if name not in hashes:
        raise Refused(
            "dependency_unavailable", "hash_missing",
            f"the requirements give hashes, and none for {name}, which they need: list it as well, with its hash",
            requirement=name,
        )  # fmt: skip
    return hashes[name]


def _mismatch(name: str, version: str) -> Refused:
    return Refused(
        "dependency_install_failed", "hash_mismatch",
        f"hash mismatch: no file of {name} {version} has a hash that requirements.txt gives for it",
        requirement=f"{name}=={version}",
    )  # fmt: skip


def _no_digest(name: str) -> Refused:
    return Refused(
        "dependency_unavailable", "no_digest",
        f"the index gives no sha256 for {name}, and what cannot be verified is not installed", requirement=name,
    )  # fmt: skip


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _file_of(file: dict[str, Any]) -> str:
    return str(file.get("name") or _filename(str(file.get("url") or file.get("path") or "")))


def _filename(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])
