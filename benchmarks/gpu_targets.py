"""What the figures of gpu.py should reach on a card, and what they do."""

from __future__ import annotations

from typing import Any

from harness import median, table

TALL, WIDE = "4,000,000 × 256, condition", "400,000 × 2000, condition"
ROBUST, QR_LEVEL = "robust-partial, CountSketch", "precondition"
NORMAL, TORCH = "normal equations, CuPy", "lstsq, torch"


def targets(data: dict[str, Any]) -> str:
    """The table; of what was not measured, nothing."""
    copy, lines = data["copy_bytes_per_second"], []

    def seconds(shape: str, name: str) -> float | None:
        times = data["solves"].get(shape, {"seconds": {}})["seconds"].get(name)
        return median(times) if times else None

    def line(work: str, asked: float, found: float | None, *, least: bool) -> None:
        if found is not None:
            met = found >= asked if least else found <= asked
            lines.append(
                [work, f"{'at least' if least else 'at most'} {asked:g}", f"{found:.2f}", "yes" if met else "no"]
            )

    def ratio(shape: str, of: str, to: str) -> float | None:
        one, other = seconds(shape, of), seconds(shape, to)
        return one / other if one and other else None

    for condition in ("1e+00", "1e+10"):
        tall, wide = f"{TALL} {condition}", f"{WIDE} {condition}"
        taken = seconds(tall, ROBUST)
        reads = taken * copy / data["solves"][tall]["bytes"] if taken else None
        line(f"{ROBUST}, {tall}: reads of A", 2.5, reads, least=False)
        line(f"{ROBUST}, {wide}: times faster than the normal equations", 3, ratio(wide, NORMAL, ROBUST), least=True)
    for shape, most in ((f"{TALL} 1e+10", 4.5), (f"{WIDE} 1e+10", 2)):
        line(f"{QR_LEVEL}, {shape}: times faster than torch's lstsq", 5, ratio(shape, TORCH, QR_LEVEL), least=True)
        line(f"{QR_LEVEL}, {shape}: ÷ normal equations", most, ratio(shape, QR_LEVEL, NORMAL), least=False)
    return table(["solve", "target", "measured", "met"], lines) if lines else ""
