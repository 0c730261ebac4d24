"""README.md: its Python runs, its figures are those of the committed result files, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

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


def test_figures_are_those_of_the_result_files():
    place = importlib.util.spec_from_file_location("refresh", ROOT / "docs" / "refresh.py")
    assert place is not None
    assert place.loader is not None
    refresh = importlib.util.module_from_spec(place)
    place.loader.exec_module(refresh)
    assert refresh.rewritten(README) == README, "README.md is stale: run python docs/refresh.py"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/notation.md"])
def test_files_that_a_page_links_to_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_every_solver_that_the_readme_names_exists():
    from rpcls.front_door import SOLVERS

    table = README[README.index("| name | minimises |") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `\"([a-z-]+)\"`", table, flags=re.MULTILINE)) == set(SOLVERS)
