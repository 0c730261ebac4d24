"""benchmarks/gpu.py where there is no card: it says what it needs, and its report is made of what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import matrix

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
        "sweeps": {"shape": "16 × 2", "bytes": 16 * 10**9, "seconds": {"CountSketch": [3e-3, 4e-3, 5e-3]}},
        "fits": {
            "statistics": {"seconds": 2.0},
            "VeRA(2)": {"seconds": 0.5, "explained": 0.25, "half_steps": 7, "converged": False},
        },
        "failed": {"sweeps": "ValueError: what happened"},
        "solves": {
            "4 × 2": {
                "seconds": {"precondition": [4e-3], "normal equations, CuPy": [2e-3], "direct": [9e-3]},
                "bytes": 5 * 10**9,
                "distances": {"precondition": 3e-14, "normal equations, CuPy": 4e-13, "direct": 0.0},
            }
        },
        "memory_bytes": 80 * 10**9,
        "host": {"bytes": 10**11, "seconds": 2.5, "copy_bytes_per_second": 5e10},
    }
    nothing = {"sweeps": {}, "solves": {}, "host": {}, "fits": {}, "failed": {}}
    assert gpu.report({**data, **nothing}) == "Copy bandwidth 5000 GB/s."
    text = gpu.report(data)
    assert "| VeRA(2) | 0.50 s | 0.250 | 7, not converged |" in text and "Failed: sweeps: ValueError: what" in text
    assert "Copy bandwidth 5000 GB/s." in text and "| CountSketch | 4.00 ms | 80% | 60% |" in text
    assert (
        "| precondition | 4.0 ms | 4.0 | 2.00 | – | 3e-14 |" in text
        and "100 GB of rows" in text
        and "80% of the" in text
    )
    assert "| 4 × 2 | precondition | 4.0 ms |" in text  # the normal equations are faster, and too far away


@pytest.mark.filterwarnings("ignore")
def test_solvers_are_compared(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    A = matrix("gaussian", 900, 6, np.random.default_rng(0), condition=10.0)
    b = A @ np.ones(6) + np.random.default_rng(1).standard_normal(900)
    held = stand_in.asarray(A), stand_in.asarray(b)
    monkeypatch.setattr(gpu, "rows", lambda *_: held)
    monkeypatch.setattr(gpu, "wall_seconds", lambda cp, job, repeats: [1e-3 * repeats])
    monkeypatch.setattr(gpu, "torch_lstsq", lambda *_: None)
    monkeypatch.setattr(gpu, "normal_equations", lambda cp, A, b: cp.asarray(1.01 * np.linalg.lstsq(A.held, b.held)[0]))
    monkeypatch.setattr(stand_in.linalg, "norm", lambda a: np.linalg.norm(a.held), raising=False)
    lstsq = lambda A, b, rcond: [stand_in.asarray(np.linalg.lstsq(A.held, b.held)[0])]  # noqa: E731
    monkeypatch.setattr(stand_in.linalg, "lstsq", lstsq, raising=False)
    solved = gpu.solvers(stand_in, (900, 6), 10.0)
    assert np.isclose(solved["distances"]["normal equations, CuPy"], 0.01)
    good = {name for name, far in solved["distances"].items() if far < 1e-13}
    assert good == {"direct", "precondition", "precondition, gram", "precondition, cg", "normal", "auto", "lstsq, CuPy"}
    solved["seconds"]["precondition, cg"], solved["seconds"]["normal equations, CuPy"] = [1e-9], [1e-10]
    assert gpu.fastest(solved) == "precondition, cg"


@pytest.mark.filterwarnings("ignore")
def test_fits_are_timed(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    from rpcls.adapters import NOLA, VeRA

    draw = np.random.default_rng(0)
    normal = SimpleNamespace(standard_normal=lambda shape, dtype: stand_in.asarray(draw.standard_normal(shape, dtype)))
    monkeypatch.setattr(stand_in, "random", SimpleNamespace(default_rng=lambda seed: normal), raising=False)
    monkeypatch.setattr(gpu, "FAMILIES", (VeRA(30), NOLA(40, 40, 2)))
    found = gpu.fits(stand_in, 24, failed := {})
    assert list(found) == ["statistics", "VeRA(rank=30, seed=0, d_initial=0.1)", repr(NOLA(40, 40, 2))]
    assert not failed and all(0 < one["explained"] < 1 for name, one in found.items() if name != "statistics")


def test_a_part_that_fails_costs_no_other(stand_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    def fail(*_: Any) -> Any:
        raise ValueError("what happened")

    written = []
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "card", lambda cp: {"card": "none"})
    monkeypatch.setattr(gpu, "copy_bandwidth", lambda cp, count: 1e12)
    told = {"name": b"none", "totalGlobalMem": 10**10}
    monkeypatch.setattr(stand_in.cuda.runtime, "getDeviceProperties", lambda number: told)
    monkeypatch.setattr(gpu, "sweeps", fail)
    monkeypatch.setattr(gpu, "solvers", lambda cp, shape, condition: written.append((shape, condition)) or fail())
    host = {"bytes": 10**11, "seconds": 2.0, "copy_bytes_per_second": 5e10}
    monkeypatch.setattr(gpu, "from_host", lambda cp, total: host)
    monkeypatch.setattr(gpu, "fits", lambda cp, features, failed: {"statistics": {"seconds": float(features)}})
    with pytest.raises(SystemExit):
        gpu.main()
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "Failed: sweeps: ValueError: what happened" in text
    assert "100% of the bandwidth of a copy" in text and "| statistics | 4096.00 s |" in text
    assert written == [(shape, condition) for shape in (gpu.MIDDLE, gpu.WIDE) for condition in (1e10, 1.0)]
