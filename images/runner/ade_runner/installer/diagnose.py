"""Why requirements cannot be had, found out from the index and the wheelhouse rather than from a program's wording."""

from __future__ import annotations

import base64
import email
import html.parser
import http.client
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from ..records import record
from .order import Asked, Order
from .tools import Refused, canonical

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_PAGE_BYTES = 32 * 1024 * 1024
_TIMEOUT_S = 15
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
_METADATA_BYTES = 1024 * 1024
_LISTED = 5
_TOLD = 20
_HASHES = re.compile(r"hash mismatch|do not match the hashes|hashes are required|mismatched hash", re.IGNORECASE)
_MISMATCH = re.compile(r"(?:mismatch for `|^ +)([A-Za-z0-9][A-Za-z0-9._-]*(?:==[^\s`]+)?)(?:`| from http| \(from )", re.MULTILINE)
_CONFLICT = re.compile(r"^The conflict is caused by:\n((?: +\S.*\n)+)", re.MULTILINE)
_COLLECTING = re.compile(r"^Collecting (\S+)", re.MULTILINE)
_ABSENT = re.compile(r"(?:Because|and) ([A-Za-z0-9._-]+)(?:[^\n]*?) (?:was not found|has no (?:usable )?wheels|is not available)")
_PIP_ABSENT = re.compile(r"No matching distribution found for ([^\s(]+)")


@record
class File:
    """A file that the index or a wheelhouse has."""

    name: str
    requires_python: str | None = None
    yanked: bool = False


class Unreachable(Exception):
    """The index did not answer as one."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def explain_resolution(order: Order, said: str) -> Refused:
    """Why no lock came out of the requirements."""
    found: list[Refused] = []
    for asked in order.requirements:
        refused = _explain(order, asked)
        if refused is None:
            continue
        found.append(refused)
        # One word from an index that does not answer stands for all.
        if refused.code.startswith("index_") or len(found) == _TOLD:
            break
    if found:
        first = found[0]
        if len(found) > 1:
            first.detail["missing"] = [one.message for one in found]
        return first
    return _from_words(order, said, "dependency_unavailable")


def explain_install(order: Order, said: str) -> Refused:
    """Why a lock was not installed."""
    return _from_words(order, said, "dependency_install_failed")


def _from_words(order: Order, said: str, kind: str) -> Refused:
    summary = _summary(said)
    if _HASHES.search(said):
        # pip does not always say of what, but it says before what it is at.
        which = _MISMATCH.findall(said)[:1] or _COLLECTING.findall(said)[-1:]
        name = which[0] if which else "a file"
        digests = re.findall(r"(?:sha256:|Expected sha256 |Got\s+)([0-9a-f]{64})", said)
        told = f"expected {digests[0]}, got {digests[1]}" if len(digests) > 1 else summary
        return Refused(
            "dependency_install_failed", "hash_mismatch",
            f"hash mismatch: what was fetched for {name} is not what was announced, and was not installed: {told}",
            requirement=name if which else None,
        )  # fmt: skip
    if re.search(r"[Ff]ailed to build|build backend|Failed building wheel|[Mm]etadata-generation-failed", said):
        return Refused("dependency_install_failed", "build_failed", f"a source archive could not be built: {summary}")
    if "No space left on device" in said:
        return Refused("dependency_install_failed", "disk_full", "the disk of dependency sets is full; the admin can make room with `ade deps prune`")
    transport = re.search(r"[Ff]ailed to fetch|error sending request|[Cc]onnection|timed out|certificate", said)
    absent = _ABSENT.search(said) or _PIP_ABSENT.search(said)
    if absent and not order.network:
        name = absent.group(1)
        return Refused(
            "dependency_network_denied", "network_denied",
            f"{name}, which the requirements need, is not in the wheelhouse, and {order.denial}; "
            f"or add it to the wheelhouse with `ade wheelhouse add`",
            requirement=name,
        )  # fmt: skip
    if absent:
        return Refused(kind, "not_found", f"{absent.group(1)}, which the requirements need, cannot be had: {summary}", requirement=absent.group(1))
    if re.search(r"unsatisfiable|ResolutionImpossible|conflicting", said):
        return Refused("dependency_unavailable", "conflict", f"the requirements contradict each other: {summary}")
    if transport and kind != "dependency_unavailable":
        return Refused("dependency_install_failed", "index_unreachable", f"a download failed: {summary}")
    return Refused(kind, "install_failed", f"the installer failed: {summary}")


def _summary(said: str) -> str:
    """The sentence of uv that says why, or what pip says of a conflict, or its last error, on one line."""
    if conflict := _CONFLICT.search(said):
        return "; ".join(line.strip() for line in conflict.group(1).splitlines())[:700]
    lines = [line.strip(" ×╰─▶│\n\t").removeprefix("cause: ") for line in said.splitlines()]
    start = next((at for at, line in enumerate(lines) if line.startswith("Because")), None)
    if start is None:
        errors = [line for line in lines if re.match(r"(error|ERROR|Caused by)", line)]
        lines = errors[-4:] or [line for line in lines if line][-3:]
    else:
        lines = lines[start:]
        end = next((at for at, line in enumerate(lines) if line.startswith("hint:")), len(lines))
        lines = lines[:end]
    return re.sub(r"\s+", " ", " ".join(lines)).strip().rstrip(".")[:700] or "see install.log"


def _explain(order: Order, asked: Asked) -> Refused | None:
    """What is wrong with one requirement; ``None`` when nothing is."""
    from pip._vendor.packaging.requirements import Requirement

    requirement = Requirement(asked.text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    housed = _housed(order, canonical(requirement.name))
    files = list(housed)
    if order.network:
        try:
            files += _indexed(order, requirement.name)
        except Unreachable as error:
            return Refused(
                "dependency_install_failed", error.code,
                f"the package index at {_shown(order.index_url)} could not be asked for {requirement.name}: {error}",
                asked.line, requirement=asked.text,
            )  # fmt: skip
    faults = _faults(order, requirement, files)
    if faults is None:
        return None
    code, why, detail = faults
    if order.network:
        return Refused("dependency_unavailable", code, f"{asked.text}: {why}", asked.line, requirement=asked.text, **detail)
    versions = _versions(requirement.name, housed)
    if not order.wheelhouses:
        has = "no wheelhouse is set up"
    elif not versions:
        has = f"the wheelhouse has no {requirement.name}"
    else:
        has = f"the wheelhouse has {requirement.name} {_list(versions)} only"
        if code == "no_wheel":
            has += ", in no wheel that fits this Python and platform"
        elif code == "wrong_python":
            has += f", and {why}"
    return Refused(
        "dependency_network_denied", "network_denied",
        f"{asked.text} cannot be installed: {has}, and {order.denial}; or add it with `ade wheelhouse add`",
        asked.line, requirement=asked.text, available=[str(one) for one in versions[:_LISTED]],
    )  # fmt: skip


def _faults(order: Order, requirement: Any, files: list[File]) -> tuple[str, str, dict[str, Any]] | None:
    from pip._vendor.packaging.specifiers import SpecifierSet
    from pip._vendor.packaging.tags import sys_tags

    name = requirement.name
    versions = _versions(name, files)
    if not versions:
        where = "the index" if order.network else "the wheelhouse"
        return "not_found", f"{where} has no package of the name {name}; look for a typing error", {}
    # A pre-release counts where it is asked for, or where there is nothing else: as for pip (PEP 440).
    fitting = list(requirement.specifier.filter(versions))
    latest = next((one for one in versions if not one.is_prerelease), versions[0])
    if not fitting:
        where = "the index" if order.network else "the wheelhouse"
        return (
            "no_matching_version", f"{where} has no such version (latest {latest}; has {_list(versions)})",
            {"latest": str(latest), "available": [str(one) for one in versions[:_LISTED]]},
        )  # fmt: skip
    python = ".".join(map(str, sys.version_info[:3]))
    tags = set(sys_tags())
    wheels, sources, wrong_python = False, False, None
    for file in files:
        version = _version(name, file)
        if version is None or version not in fitting:
            continue
        try:
            suits = file.requires_python is None or SpecifierSet(file.requires_python).contains(python)
        except ValueError:
            suits = True
        if not suits:
            wrong_python = file.requires_python
        elif file.name.endswith(".whl"):
            if _tags(file) & tags:
                return None
            wheels = True
        else:
            sources = True
    platform = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {_platform()}"
    newest = max(fitting)
    if sources and order.source_builds:
        return None
    if sources and not wheels:
        return (
            "no_wheel",
            f"{name} {newest} comes as a source archive only, and wheels only are installed; an admin may allow source builds for this "
            "package with `ade network set --package … --source-builds on`, or put a wheel into the wheelhouse",
            {"platform": platform},
        )  # fmt: skip
    if wrong_python is not None and not wheels and not sources:
        return "wrong_python", f"{name} {newest} needs Python {wrong_python}, the image has {python}", {"python": python}
    return "no_wheel", f"{name} {newest} has no wheel for {platform}", {"platform": platform}


def _platform() -> str:
    from pip._vendor.packaging.tags import platform_tags

    return next(iter(platform_tags()), "this platform")


def _list(versions: list[Any]) -> str:
    more = f" and {len(versions) - _LISTED} more" if len(versions) > _LISTED else ""
    return ", ".join(str(one) for one in versions[:_LISTED]) + more


def _versions(name: str, files: list[File]) -> list[Any]:
    """Versions among the files, newest first; withdrawn ones left out."""
    found = {version for file in files if not file.yanked and (version := _version(name, file)) is not None}
    return sorted(found, reverse=True)


def _version(name: str, file: File) -> Any:
    from pip._vendor.packaging.utils import parse_sdist_filename, parse_wheel_filename

    try:
        if file.name.endswith(".whl"):
            return parse_wheel_filename(file.name)[1]
        return parse_sdist_filename(file.name)[1]
    except ValueError:
        return None


def _project(name: str) -> str:
    from pip._vendor.packaging.utils import parse_sdist_filename, parse_wheel_filename

    try:
        return str((parse_wheel_filename if name.endswith(".whl") else parse_sdist_filename)(name)[0])
    except ValueError:
        return ""


def _tags(file: File) -> frozenset[Any]:
    from pip._vendor.packaging.utils import parse_wheel_filename

    try:
        return frozenset(parse_wheel_filename(file.name)[3])
    except ValueError:
        return frozenset()


def _housed(order: Order, project: str) -> list[File]:
    """The files of a project in the wheelhouses."""
    found = []
    for wheelhouse in order.wheelhouses:
        try:
            paths = [path for path in wheelhouse.iterdir() if _project(path.name) == project]
        except OSError as error:
            raise Refused(
                "dependency_unavailable", "wheelhouse_unreadable",
                f"the wheelhouse cannot be read in the installer ({error.strerror}): its folder and files must be readable for everyone",
            ) from error  # fmt: skip
        found += [File(path.name, _requires_python(path)) for path in paths]
    return found


def _requires_python(path: Path) -> str | None:
    """What a wheel says of the versions of Python that it is for; an index says it for its files."""
    if path.suffix != ".whl":
        return None
    try:
        with zipfile.ZipFile(path) as wheel:
            name = next(name for name in wheel.namelist() if _METADATA.fullmatch(name))
            with wheel.open(name) as file:
                return email.message_from_bytes(file.read(_METADATA_BYTES)).get("Requires-Python")
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        return None  # the tool says what is wrong with the file


def _indexed(order: Order, name: str) -> list[File]:
    """The files of a project: from the first index that has it, as the installer takes them."""
    for url in (*order.extra_index_urls, order.index_url):
        files = _page(url.rstrip("/") + f"/{canonical(name)}/")
        if files is not None:
            return files
    return []


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        href = values.get("href")
        if tag == "a" and href:
            name = unquote(urlsplit(urljoin("http://index/", href)).path.rpartition("/")[2])
            self.files.append(File(name, values.get("data-requires-python"), "data-yanked" in values))


def _page(url: str) -> list[File] | None:
    """One page of the simple API (PEP 503, PEP 691); ``None`` when the index does not know the project."""
    parts = urlsplit(url)
    headers = {"Accept": _ACCEPT, "User-Agent": "ade-installer"}
    if "@" in parts.netloc:
        credentials, _, host = parts.netloc.rpartition("@")
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(credentials).encode()).decode()
        parts = parts._replace(netloc=host)
    request = urllib.request.Request(urlunsplit(parts), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            kind, body = answer.headers.get_content_type(), answer.read(_PAGE_BYTES)
    except urllib.error.HTTPError as error:
        if "X-ADE-Code" in error.headers:
            # Not the index says so, but the engine, which makes the connections of an installer.
            raise Unreachable("index_unreachable", error.reason.removeprefix("ADE: ")) from error
        if error.code in (404, 410):
            return None
        if error.code in (401, 403):
            raise Unreachable("index_denied", f"it answers {error.code}; check the credentials in ADE_INDEX_URL") from error
        raise Unreachable("index_unreachable", f"it answers {error.code} {error.reason}") from error
    except http.client.HTTPException as error:
        raise Unreachable("index_unreachable", f"its answer is no HTTP, or breaks off ({type(error).__name__})") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unreachable(
                "index_unreachable",
                f"TLS: {reason.verify_message}; if a proxy inspects TLS here, point ADE_CA_BUNDLE at its authorities",
            ) from error
        raise Unreachable("index_unreachable", f"{reason}") from error
    try:
        if kind.endswith("json"):
            listed = json.loads(body)["files"]
            return [File(one["filename"], one.get("requires-python"), bool(one.get("yanked"))) for one in listed]
        anchors = _Anchors()
        anchors.feed(body.decode("utf-8", "replace"))
        return anchors.files
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable("index_unreachable", f"its answer is no page of a package index ({type(error).__name__})") from error


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
