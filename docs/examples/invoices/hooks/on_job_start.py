"""Turns the settings in the manifest's ``env`` (text) into values for all later scripts."""

from __future__ import annotations

from collections.abc import Mapping


def run(*, env: Mapping[str, str], **_: object) -> dict[str, object]:
    """Settings that make no sense fail the job here, before any work."""
    cents = env.get("TOLERANCE_CENTS", "1")
    if not cents.isdecimal():
        raise ValueError("TOLERANCE_CENTS in the manifest's env must be a whole number of cents")
    return {
        "default_currency": env.get("DEFAULT_CURRENCY", "EUR"),
        # Half a cent above, so that rounding of binary fractions never decides.
        "tolerance": int(cents) / 100 + 0.005,
    }
