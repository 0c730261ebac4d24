"""README.md and docs/: Python runs, figures are those of the committed result files, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert blocks("python")
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    solution = namespace["sol"]
    assert solution.status.ok
    assert repr(solution) in capsys.readouterr().out
    assert namespace["c"].shape == namespace["A"].shape
    assert list(tmp_path.iterdir()) == []


def test_shell_blocks_install_the_extras_that_exist():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, second = blocks("sh")[:2]
    assert "rpcls study" in first
    assert "pytest" in second
    extras = re.findall(r"\.\[([a-z]+)\]", first + second)
    assert extras == ["study", "test"]
    assert set(extras) <= set(project["optional-dependencies"])


@pytest.fixture(scope="module")
def refresh() -> ModuleType:
    place = importlib.util.spec_from_file_location("refresh", ROOT / "docs" / "refresh.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md", "docs/accuracy.md"])
def test_figures_are_those_of_the_result_files(refresh, page):
    assert page in refresh.PAGES
    text = (ROOT / page).read_text(encoding="utf-8")
    assert refresh.rewritten(text, page) == text, f"{page} is stale: run python docs/refresh.py"


def test_every_marker_is_filled_by_a_command(refresh):
    for page in refresh.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert set(re.findall(r"<!-- (\w+):begin -->", text)) == set(refresh.sections(page))
    for name in refresh.RESULTS_SHOWN:
        assert refresh._result(name, "docs/benchmarks.md").startswith(f"Written by `python benchmarks/{name}.py`.")


def test_results_move_into_pages_with_their_links_and_headings(refresh, monkeypatch, tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    text = "# Title\n\nLead.\n\n## Part\n\n![a](compress.svg) [b](https://example.org) [c](#part)\n"
    (results / "made.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(refresh, "ROOT", tmp_path)
    monkeypatch.setattr(refresh, "RESULTS", results)
    rest = "[b](https://example.org) [c](#part)"
    moved = refresh._result("made", "docs/benchmarks.md")
    assert moved == f"Lead.\n\n### Part\n\n![a](../benchmarks/results/compress.svg) {rest}"
    assert refresh._result("made", "README.md") == f"Lead.\n\n## Part\n\n![a](benchmarks/results/compress.svg) {rest}"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/notation.md", "docs/benchmarks.md", "docs/accuracy.md"]
)
def test_files_that_a_page_links_to_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_every_solver_that_the_readme_names_exists():
    from rpcls.front_door import SOLVERS

    # "auto" stands for the cheapest safe one of them
    table = README[README.index("| name | minimises |") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `\"([a-z-]+)\"`", table, flags=re.MULTILINE)) == {"auto", *SOLVERS}
