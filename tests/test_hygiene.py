"""The house rules: which way imports run, what importing costs, public names, docstrings, sizes of files."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rpcls

PACKAGE = Path(rpcls.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# from the ground up; a module may import from lower layers, and from its own room
LAYERS = [
    {"errors"},
    {"expressions", "progress", "random", "rates", "solution"},
    {"kernels"},
    {"linalg"},
    {"factor", "ridge"},
    {"sketches"},
    {"compressed"},
    {"sources"},
    {"accuracy", "planning", "sizes"},
    {"onepass", "multipass"},
    {"automatic", "calibration"},
    {"front_door"},
    {"certification"},
    {"datasets", "adapters", "estimators"},
    {"study"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
HOSTS = {"study", "cli", "datasets", "adapters", "estimators", "progress"}  # may import frameworks, when used
OPTIONAL = ("scipy", "numba", "llvmlite", "pandas", "matplotlib", "sklearn", "cvxpy", "cupy", "torch", "dask", "PIL",
            "rich", "psutil", "threadpoolctl", "pyarrow")  # fmt: skip

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """(absolute module name, at the top level, line) of every import, those inside functions and TYPE_CHECKING too."""
    package = ["rpcls", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module in ("rpcls", *(".".join(base[:i]) for i in range(1, len(base) + 1))) or node.module is None:
                for alias in node.names:
                    yield f"{module}.{alias.name}", id(node) in top, node.lineno
            else:
                yield module, id(node) in top, node.lineno


@every_file
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in RANK, f"{path.name} belongs to no layer; say where in this test"
    for module, _, line in imports(path):
        if module.split(".")[0] != "rpcls" or module == "rpcls":
            assert module != "rpcls" or RANK[room] > RANK["front_door"], f"{path}:{line} imports the whole package"
            continue
        other = module.split(".")[1]
        if other not in RANK:  # a public name of the package
            assert RANK[room] > RANK["front_door"] and hasattr(rpcls, other), f"{path}:{line} imports {module}"
        else:
            assert other == room or RANK[other] < RANK[room], f"{path}:{line}: {room} must not import {module}"


@every_file
def test_only_numpy_and_the_standard_library_at_the_top(path: Path) -> None:
    compiled = path.is_relative_to(PACKAGE / "kernels" / "cpu")
    for module, top, line in imports(path):
        first = module.split(".")[0]
        if top and first not in sys.stdlib_module_names:
            allowed = {"numpy", "rpcls", "numba", "llvmlite"} if compiled else {"numpy", "rpcls"}
            assert first in allowed, f"{path}:{line} imports {module} at the top"
            assert compiled or not module.startswith("rpcls.kernels.cpu"), f"{path}:{line} loads numba at import"


@every_file
def test_only_host_rooms_know_frameworks(path: Path) -> None:
    known = {"numpy", "rpcls", "scipy", "numba", "llvmlite"}
    for module, _, line in imports(path):
        first = module.split(".")[0]
        if first not in sys.stdlib_module_names and room_of(path) not in HOSTS:
            if path.is_relative_to(PACKAGE / "kernels" / "cuda") and first in ("cupy", "cupyx", "cupy_backends"):
                continue
            assert first in known, f"{path}:{line} imports {module}"


@every_file
def test_kernels_know_arrays_and_integers_only(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "kernels" / "cpu"):
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assert not any(m.startswith("rpcls.") and not m.startswith("rpcls.kernels") for m, _, _ in imports(path))


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_loads_numpy_and_nothing_else() -> None:
    loaded = f"[m for m in {OPTIONAL!r} if m in sys.modules]"
    assert run(f"import sys, rpcls; print({loaded}, 'numpy' in sys.modules)") == "[] True"
    values = "rpcls.Key.of(0), rpcls.SparseSign().sample(16, rng=0), rpcls.Direct(), rpcls.RowBlocks, rpcls.compress"
    assert run(f"import sys, rpcls; {values}; print({loaded})") == "[]"
    for name in rpcls.__all__:
        if name not in ("study", "datasets"):
            getattr(rpcls, name)
    every = "[getattr(rpcls, n) for n in rpcls.__all__]"
    assert run(f"import sys, rpcls; {every}; print({loaded})") == "[]"


def test_nothing_happens_at_import() -> None:
    assert (
        run("import threading, rpcls; [getattr(rpcls, n) for n in rpcls.__all__]; print(threading.active_count())")
        == "1"
    )


# -- public names -----------------------------------------------------------------------------------


def test_public_names_are_one_list() -> None:
    assert list(rpcls.__all__) == sorted(rpcls.__all__) and len(set(rpcls.__all__)) == len(rpcls.__all__)
    assert set(rpcls.__all__) <= set(dir(rpcls)) and rpcls.__version__
    for name in rpcls.__all__:
        assert getattr(rpcls, name) is getattr(rpcls, name)
    namespace: dict[str, object] = {}
    exec("from rpcls import *", namespace)
    assert set(rpcls.__all__) <= set(namespace)
    with pytest.raises(AttributeError, match="module 'rpcls' has no attribute 'lstq'"):
        rpcls.lstq  # type: ignore[attr-defined]  # noqa: B018


def test_names_for_type_checkers_are_the_public_ones() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    homes = {
        alias.name: "." + (node.module or "")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == rpcls._HOME_OF


def test_every_module_has_an_honest_all() -> None:
    import importlib

    for path in FILES:
        relative = path.relative_to(PACKAGE)
        if "cpu" in relative.parts or relative.name in ("__main__.py",):
            continue
        name = ".".join(["rpcls", *relative.with_suffix("").parts]).removesuffix(".__init__")
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.{public}"


CLASSES = [n for n in rpcls.__all__ if inspect.isclass(getattr(rpcls, n))]
FUNCTIONS = [n for n in rpcls.__all__ if inspect.isfunction(getattr(rpcls, n))]


@pytest.mark.parametrize("name", rpcls.__all__)
def test_public_names_are_documented(name: str) -> None:
    value = getattr(rpcls, name)
    if isinstance(value, int):
        return
    text = inspect.getdoc(value) or ""
    assert len(text) > 25 and not text.startswith(f"{name}("), "a dataclass's made-up docstring"
    if (isinstance(value, type) and issubclass(value, Exception)) or inspect.ismodule(value):
        return
    assert re.search(r"^Examples\n-{8}$", text, re.MULTILINE) and ">>> " in text, f"{name} has no example"
    for title, rule in re.findall(r"^([A-Z][A-Za-z ]+)\n(-{3,})$", text, re.MULTILINE):
        assert len(title) == len(rule), f"{name}: underline of {title}"
    if inspect.isfunction(value):
        parameters = inspect.signature(value).parameters
        section = text.partition("Parameters\n----------\n")[2]
        for parameter in parameters:
            assert re.search(rf"^[\w, ]*\b{parameter}\b[\w, ]*( :|$)", section, re.MULTILINE), f"{name}: {parameter}"
        assert "Returns\n-------" in text and "Raises\n------" in text


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_are_documented(name: str) -> None:
    for attribute, value in vars(getattr(rpcls, name)).items():
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property | classmethod)):
            inherited = any(attribute in vars(base) for base in getattr(rpcls, name).__mro__[1:])
            assert inherited or inspect.getdoc(value), f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_public_signatures_are_annotated(name: str) -> None:
    value = getattr(rpcls, name)
    if isinstance(value, type) and issubclass(value, Exception | __import__("enum").Enum):
        return
    members = [value] if inspect.isfunction(value) else [
        v for k, v in vars(value).items() if inspect.isfunction(v) and not k.startswith("_")
    ]  # fmt: skip
    for member in members:
        signature = inspect.signature(member)
        assert signature.return_annotation is not inspect.Signature.empty, member.__qualname__
        for parameter in list(signature.parameters.values())[0 if member is value else 1 :]:
            assert parameter.annotation is not inspect.Parameter.empty, f"{member.__qualname__}: {parameter.name}"


def test_errors_are_what_a_caller_would_catch() -> None:
    from rpcls import errors

    for name in errors.__all__:
        value = getattr(errors, name)
        assert issubclass(value, errors.RpclsWarning if name.endswith("Warning") else errors.RpclsError)
        assert getattr(rpcls, name) is value and not hasattr(builtins, name)
    for name, base in [
        ("InvalidValueError", ValueError), ("InvalidTypeError", TypeError), ("NonFiniteError", ValueError),
        ("SourceError", RuntimeError), ("FormatError", ValueError), ("NotConvergedError", RuntimeError),
        ("MissingDependencyError", ImportError),
    ]:  # fmt: skip
        assert issubclass(getattr(errors, name), base)
    message = str(errors.MissingDependencyError.for_package("pandas", "study", "reading CSV"))
    assert message == 'reading CSV needs pandas, which is not installed; run: pip install "rpcls[study]"'


# -- files ------------------------------------------------------------------------------------------


@every_file
def test_files_are_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert text.startswith(('"""', "#!")), "a module begins with the sentence that says what it is"
    assert "from __future__ import annotations" in text or "import" not in text


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").glob("*.py"))], ids=lambda path: path.name)
def test_no_machine_paths_and_no_leftovers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in (
        "/wo" + "rk",
        "/tm" + "p/",
        "/ro" + "ot",
        "/ho" + "me/",
        "FIX" + "ME",
        "TO" + "DO",
        "XX" + "X",
        "breakpoint" + "(",
    ):
        assert word not in text, f"{path.name} holds {word}"


@every_file
def test_no_print_and_no_assert_on_user_data(path: Path) -> None:
    if room_of(path) in ("cli", "study"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exec", "eval"), f"{path}:{node.lineno}"
        if isinstance(node, ast.Assert):
            told = ast.unparse(node.test)
            assert "isinstance" in told or "is not None" in told, f"{path}:{node.lineno}: only to tell the type checker"


def test_global_random_state_is_never_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    rpcls.lstsq(np.ones((50, 2)) + np.eye(50, 2), np.ones(50), "full", rng=0)
    rpcls.compress(np.ones((50, 2)), np.ones(50))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    for path in FILES:
        assert not re.search(r"np\.random\.(seed|rand|randn|random|normal)\(", path.read_text(encoding="utf-8"))
