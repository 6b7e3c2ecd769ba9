"""The imports inside the package are those of ARCHITECTURE.md: no other, and no cycles."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "pyterrier_bertcat"
ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / PACKAGE).is_dir():
    pytest.skip("the package's sources are not beside these tests", allow_module_level=True)
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
HEAVY = {"torch", "transformers"}


def imported_modules(path: Path, *, module_level_only: bool = False) -> set[str]:
    """Every absolute module name that a file imports; ``from a import b`` counts as a.b where that is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in runtime_nodes(tree) if module_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import, line {node.lineno}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else node.module for name in names}
    return found


def runtime_nodes(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run when the module is imported, conditional ones too, TYPE_CHECKING blocks not."""
    todo, nodes = list(tree.body), []
    while todo:
        node = todo.pop()
        nodes.append(node)
        type_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not type_checking and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        if isinstance(node, ast.If):
            todo += node.orelse
    return nodes


def part_of(module: str) -> str:
    """The name that ARCHITECTURE.md uses: the module, or the subpackage that it is in."""
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0] or PACKAGE


def documented() -> dict[str, tuple[set[str], bool]]:
    """ARCHITECTURE.md's block: part -> the parts that it may import, and whether torch is among its own imports."""
    block = re.search(r"```imports\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block, "ARCHITECTURE.md has no ```imports block"
    rules = {}
    for line in block[1].splitlines():
        match = re.fullmatch(r"(\w+) +-> *([\w, ]*?) *(\| torch)?", line)
        assert match, f"this line of ARCHITECTURE.md is not 'part -> part, part | torch': {line!r}"
        assert match[1] not in rules, f"{match[1]} has two lines"
        rules[match[1]] = ({name.strip() for name in match[2].split(",")} - {""}, bool(match[3]))
    return rules


def internal(imports: set[str]) -> set[str]:
    return {name for name in imports if name.partition(".")[0] == PACKAGE}


def test_architecture_names_exactly_the_parts_that_exist():
    assert set(documented()) == {part_of(module) for module in SOURCES}
    assert set().union(*(allowed for allowed, _ in documented().values())) <= set(documented())


def test_the_documented_directions_have_no_cycle():
    TopologicalSorter({part: allowed for part, (allowed, _) in documented().items()}).prepare()


def test_the_modules_have_no_cycle():
    graph = {module: internal(imported_modules(path)) - {module} for module, path in SOURCES.items()}
    graph[PACKAGE] = set()  # its names are for type checkers only, each is imported when it is first used
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"the imports go round: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_architecture_allows(module):
    part = part_of(module)
    allowed, _ = documented()[part]
    imports = internal(imported_modules(SOURCES[module]))
    assert PACKAGE not in imports, f"{module} imports from the package itself: name the defining module"
    found = {part_of(name) for name in imports} - {part}
    assert found <= allowed, f"{module} imports {sorted(found - allowed)}: forbidden by ARCHITECTURE.md"


@pytest.mark.parametrize("part", documented())
def test_a_part_uses_every_import_that_it_is_allowed(part):
    allowed, _ = documented()[part]
    used = {
        part_of(name)
        for module, path in SOURCES.items()
        if part_of(module) == part
        for name in internal(imported_modules(path))
    }
    assert allowed <= used, f"ARCHITECTURE.md allows {part} -> {sorted(allowed - used)}, which is not used"


@pytest.mark.parametrize("module", SOURCES)
def test_torch_and_transformers_are_imported_only_where_tensors_are(module):
    _, tensors = documented()[part_of(module)]
    heavy = {name.partition(".")[0] for name in imported_modules(SOURCES[module], module_level_only=True)} & HEAVY
    assert tensors or not heavy, f"importing {module} imports {sorted(heavy)}"
