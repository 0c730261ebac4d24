"""benchmarks/gpu.py where there is no card: it says what it needs, and its report is made of what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def test_without_cupy_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('none here')", encoding="utf-8")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(FOLDER)!r}]; import gpu; gpu.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "needs CuPy: pip install cupy-cuda12x or cupy-cuda13x" in done.stderr


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    data = {
        "copy_bytes_per_second": 5e12,
        "shape": "16 × 2",
        "sweeps": {"CountSketch": [3e-3, 4e-3, 5e-3]},
        "bytes": 16 * 10**9,
        "solves": {
            "4 × 2": {
                "seconds": {"precondition": [4e-3], "normal equations, CuPy": [2e-3]},
                "bytes": 5 * 10**9,
                "distances": {"precondition": 3e-16},
            }
        },
        "memory_bytes": 80 * 10**9,
        "host": {"bytes": 10**11, "seconds": 2.5, "copy_bytes_per_second": 5e10},
    }
    text = gpu.report(data)
    assert "Copy bandwidth 5000 GB/s." in text and "| CountSketch | 4.00 ms | 80% | 60% |" in text
    assert (
        "| precondition | 4.0 ms | 4.0 | 2.00 | 3e-16 |" in text and "100 GB of rows" in text and "80% of the" in text
    )
