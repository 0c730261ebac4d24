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

    swept = {"CountSketch": [3e-3, 4e-3, 5e-3]}, 16 * 10**9
    text = gpu.report(5e12, swept, {"4 × 2": ({"precondition": [2e-3]}, 5 * 10**9)})
    assert "Copy bandwidth 5000 GB/s." in text and "| CountSketch | 4.00 ms | 80% | 60% |" in text
    assert "| precondition | 2.0 ms | 2.0 |" in text
