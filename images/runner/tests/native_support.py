"""Where the runner's compiled module is."""

import os
from pathlib import Path

NATIVE = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).resolve().parents[3] / "target", "native")
