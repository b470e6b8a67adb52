"""Fuzzes `ade serve` with what its own OpenAPI document says, by Schemathesis.

Starts a server over a temporary folder with one of everything in it, with a queue that hands nothing out, and asserts that no
answer is a 5xx or outside of the document. Usage: run.py ADE [SECONDS], with the Python that has Schemathesis.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = "20251107"
MANIFEST = {
    "config_script_api_version": "1",
    "info": {"schema": "ade.manifest/v1.0", "title": "Under test", "version": "1.0.0"},
    "columns": {"order": ["name"], "meta": {"name": {"label": "Name"}}},
}


class Server:
    """A server with a workspace, a config with a draft, a document and a job that has ended."""

    def __init__(self, ade: str, folder: Path) -> None:
        self.log = (folder / "log").open("wb")
        data = folder / "data"
        command = [ade, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data), "--rate-limit", "0"]
        # The bodies of a fuzzer are small; what is over this is refused as a document over the default is.
        command += ["--max-document-mb", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.url = (data / "address").read_text().strip()
                urllib.request.urlopen(self.url + "/readyz").close()
                break
            except (OSError, urllib.error.URLError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("ade serve does not start: " + (folder / "log").read_text()) from None
                time.sleep(0.05)
        self.key = (data / "admin-key").read_text().strip()

    def send(self, method: str, path: str, body: bytes | None, content_type: str = "application/json") -> dict:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": content_type}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def furnish(self) -> dict[str, str]:
        base = "/api/v1/workspaces/default"
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("manifest.json", json.dumps(MANIFEST))
        form = b""
        for head, content in [('name="slug"', b"fuzzed"), ('name="package"; filename="p.zip"', package.getvalue())]:
            form += f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        config = self.send("POST", f"{base}/configs", form + b"--b--\r\n", "multipart/form-data; boundary=b")
        document = self.send("POST", f"{base}/documents?filename=a.csv", b"Name\nAda\n", "text/csv")
        draft = self.send("POST", f"{base}/configs/{config['config_id']}/drafts", b"{}")
        order = {"config_id": config["config_id"], "document_ids": [document["document_id"]]}
        job = self.send("POST", f"{base}/jobs", json.dumps(order).encode())
        # One that has ended, with all its files, before the queue hands nothing out any more.
        while job["status"] in ("queued", "running"):
            job = self.send("GET", f"{base}/jobs/{job['job_id']}", None)
            time.sleep(0.1)
        assert job["status"] == "succeeded", job
        self.send("PUT", "/api/v1/system/queue", b'{"state": "paused"}')
        # A key that may be revoked, over and over.
        key = self.send("POST", f"{base}/keys", b'{"name": "spare", "role": "viewer"}')
        return {
            "workspace": "default",
            "config_id": config["config_id"],
            "version_id": config["latest_version"]["config_version_id"],
            "draft_id": draft["draft_id"],
            "path": "manifest.json",
            "document_id": document["document_id"],
            "job_id": job["job_id"],
            "key_id": key["key_id"],
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def fuzz(server: Server, folder: Path, ids: dict[str, str], arguments: list[str]) -> bool:
    """One round; whether it found nothing."""
    config = (HERE / "schemathesis.toml").read_text() + "\n[parameters]\n"
    config += "".join(f'"path.{name}" = "{value}"\n' for name, value in ids.items())
    (folder / "schemathesis.toml").write_text(config)
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(folder / "schemathesis.toml"), "run", server.url + "/openapi.json"]
    command += ["--header", f"Authorization: Bearer {server.key}", "--seed", SEED, "--generation-database", "none"]
    command += ["--continue-on-failure", "--no-color", "--suppress-health-check", "all", "--request-timeout", "20", *arguments]
    return subprocess.run(command, cwd=folder).returncode == 0


def main() -> int:
    ade, seconds = str(Path(sys.argv[1]).resolve()), int(sys.argv[2]) if len(sys.argv) > 2 else 120
    folder = Path(tempfile.mkdtemp(prefix="ade-fuzz-api-"))
    server = None
    try:
        server = Server(ade, folder)
        ids = server.furnish()
        # Streams and waits end when nothing happens for long: the fuzzer asks for them without.
        switches = ["--exclude-path-regex", "/system/(queue|safe-mode)$"]
        switched = ["--include-path-regex", "/system/(queue|safe-mode)$"]
        limits = ["--max-examples", "40", "--max-time"]
        good = fuzz(server, folder, ids, [*switches, *limits, str(seconds // 2), "--phases", "examples,coverage,fuzzing"])
        good &= fuzz(server, folder, {}, [*switches, *limits, str(seconds // 2), "--phases", "examples,coverage,fuzzing,stateful"])
        # What turns the queue off comes last: a 503 is then the right answer to a submission.
        good &= fuzz(server, folder, {}, [*switched, *limits, "20", "--phases", "examples,coverage,fuzzing"])
        log = (folder / "log").read_text(errors="replace")
        broken = [line for line in log.splitlines() if "ERROR" in line or "panicked" in line]
        if broken:
            print("the server's log:", *broken[:20], sep="\n")
        return 0 if good and not broken and server.process.poll() is None else 1
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
