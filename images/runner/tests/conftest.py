"""Puts the runner's compiled module on the path: any `cargo build` of the program leaves it in the target directory."""

import sys

from native_support import NATIVE

if not (NATIVE / "ade_native.abi3.so").exists():
    sys.exit(f"{NATIVE} has no ade_native.abi3.so: run `cargo build` first")
sys.path.append(str(NATIVE))
