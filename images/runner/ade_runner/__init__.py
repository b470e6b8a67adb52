"""The ADE runner: what runs inside a job container."""

RUNNER_VERSION = "1.0.0"
