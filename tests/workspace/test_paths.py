"""No module outside the workspace builds the path of a table: readers and writers are methods of its stores."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "anonlib"
TABLES = {
    *("inventory", "images", "faces", "reasons", "subjects", "classes", "surrogates", "draws", "assignments"),
    *("rendered", "accounts", "manifest", "commits", "lost", "surrogate_plans"),
}
MODULES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ("workspace", "verification", "datasets", "storage", "training")
]
"""Datasets know a dataset's files, storage which names may stand in a sentence; training reads what it is given."""
METHODS = {"path", "_table", "_table_path"}


def paths_built(source: str) -> Iterator[str]:
    """What in a module names a table's file: a call of a store's `path`, or text that ends in a table's ending."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            names = {part.value for part in node.args if isinstance(part, ast.Constant)}
            if names & TABLES:
                yield ast.unparse(node)
        texts = [node] if isinstance(node, ast.Constant) else node.values if isinstance(node, ast.JoinedStr) else []
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in texts)
        top = text.partition("/")[0]
        in_folder = text.endswith("/") and top in {"scan", "plan", "render", "review", "commits", "manifest"}
        of_table = text.endswith((".parquet", "{}.npz")) and text != ".parquet"
        if (in_folder or of_table) and not set(" *") & set(text):
            yield ast.unparse(node)


def test_no_module_builds_the_path_of_a_table() -> None:
    built = {str(path.relative_to(ROOT)): list(paths_built(path.read_text())) for path in MODULES}
    assert {module: paths for module, paths in built.items() if paths} == {}
    for source in ('store.path("faces", shard)', 'read(f"manifest/{shard}.parquet")', 'storage.list("scan/")'):
        assert list(paths_built(source)), "what is looked for is found"
