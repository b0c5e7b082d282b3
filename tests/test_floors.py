"""The house has floors: a file imports only from below. This reads the imports of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

METHODS = sorted(
    f"kaizen.methods.{path.stem}"
    for path in (ROOT / "kaizen" / "methods").glob("*.py")
    if path.stem not in ("base", "__init__")
)

# Floor by floor from the ground; inside a floor, a file may import those that stand before it.
FLOORS: list[list[str]] = [
    [
        "kaizen.args",
        "kaizen.files",
        "kaizen.disk",
        "kaizen.lock",
        "kaizen.states",
        "kaizen.signals",
        "kaizen.bash_script",
        "kaizen.relay",
        "kaizen.processes",
        "kaizen.recipe",
        "kaizen.slots",
        "kaizen.slurm",
        "kaizen.jobs",
        "kaizen.logs",
        "kaizen.precision",
        "kaizen.seeds",
        "kaizen.ranks",
        "kaizen.meeting",
        "kaizen.losses",
        "kaizen.metrics",
        "kaizen.data",
        "kaizen.data.tasks",
    ],
    [
        "kaizen.plots",
        "kaizen.models",
        "kaizen.models.heads",
        "kaizen.models.kmeans",
        "kaizen.models.momentum",
        "kaizen.models.frozen",
        "kaizen.models.convolution",
        "kaizen.models.recompute",
        "kaizen.models.resnet",
        "kaizen.models.encoders",
        "kaizen.data.augment",
        "kaizen.data.filters",
        "kaizen.data.cache",
        "kaizen.data.paths",
        "kaizen.data.index",
        "kaizen.data.decoding",
        "kaizen.data.images",
        "kaizen.data.identity",
        "kaizen.data.readable",
        "kaizen.data.held_back",
        "kaizen.data.given",
        "kaizen.data.views",
        "kaizen.data.lists",
        "kaizen.data.datasets",
        "kaizen.data.checks",
        "kaizen.data.replay",
        "kaizen.data.loaders",
    ],
    [
        "kaizen.methods.base",
        *METHODS,
        "kaizen.methods",
        "kaizen.distillers",
        "kaizen.optim",
    ],
    [
        "kaizen.devices",
        "kaizen.cli",
        "kaizen.notices",
        "kaizen.plan",
        "kaizen.plan_lines",
        "kaizen.folders",
        "kaizen.experiment",
        "kaizen.csv_form",
        "kaizen.report",
        "kaizen.runs",
        "kaizen.runs_csv",
        "kaizen.group_names",
        "kaizen.study",
        "kaizen.study_tables",
        "kaizen.study_look",
        "kaizen.study_bars",
        "kaizen.study_plots",
        "kaizen.metrics_file",
        "kaizen.status",
        "kaizen.wandb_run",
        "kaizen.dashboards",
        "kaizen.wandb_rows",
        "kaizen.page",
        "kaizen.page.html",
        "kaizen.page.chart",
        "kaizen.page.words",
        "kaizen.page.facts",
        "kaizen.page.pictures",
        "kaizen.page.scores",
        "kaizen.page.curves",
        "kaizen.page.setting",
        "kaizen.page.report",
        "kaizen.page.__main__",
        "kaizen.page.comparison",
        "kaizen.loggers",
        "kaizen.guard",
        "kaizen.learner",
        "kaizen.archive",
        "kaizen.opcodes",
        "kaizen.published",
        "kaizen.trained_on",
        "kaizen.checkpoint",
        "kaizen.networks",
        "kaizen.saving",
        "kaizen.progress",
        "kaizen.samples",
        "kaizen.sharing",
        "kaizen.building",
        "kaizen.features",
        "kaizen.knn",
        "kaizen.linear",
        "kaizen.protocols",
        "kaizen.judge",
        "kaizen.memory",
        "kaizen.embedding",
        "kaizen.compiling",
        "kaizen.trained",
    ],
    ["kaizen.commands", "kaizen.task", "kaizen.evaluate", "kaizen.compare", "kaizen.predict", "kaizen.export"],
    ["kaizen"],  # the door: what it hands out is imported when it is asked for
    ["main_continual"],
]
ORDER = [name for floor in FLOORS for name in floor]

HEAVY_USERS = [
    *("kaizen.report", "kaizen.plots", "kaizen.data.datasets"),
    *("kaizen.loggers", "kaizen.wandb_run", "kaizen.wandb_rows", "kaizen.dashboards"),
]

LONGEST = 300
LONGER = {"kaizen/args.py": "every flag, once: the list is what the file is for"}


def path_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inside if name in ORDER} or {node.module}
    return found


def own_imports(module: str) -> set[str]:
    return {name for name in imports(path_of(module)) if name.split(".")[0] in ("kaizen", "main_continual")}


def product_files() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(ROOT / "kaizen").rglob("*.py")])


def test_every_file_has_its_place() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert {path_of(module) for module in ORDER} == set(product_files()) - {ROOT / "job_launcher.py"}


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_only_from_below(module: str) -> None:
    below = ORDER[: ORDER.index(module)]
    assert own_imports(module) - set(below) == set()


def test_the_import_finder_sees_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import kaizen.args\nfrom kaizen import plots, __doc__\nfrom kaizen.files import read_json\n"
        "def f():\n    from kaizen.data import views\n    import torch.nn as nn\n"
    )
    assert imports(path) == {"kaizen.args", "kaizen.plots", "kaizen.files", "kaizen.data.views", "torch.nn"}


def test_losses_never_see_lightning() -> None:
    used = {name.split(".")[0] for name in imports(path_of("kaizen.losses"))}
    assert used - sys.stdlib_module_names == {"torch", "kaizen"}


@pytest.mark.parametrize("module", METHODS)
def test_a_method_stands_on_its_own(module: str) -> None:
    assert own_imports(module) & {*METHODS} == set()


@pytest.mark.parametrize("module", ["kaizen.methods.base", *METHODS, "kaizen.methods"])
def test_methods_see_views_and_nothing_else(module: str) -> None:
    forbidden = ("kaizen.data", "kaizen.distillers", "kaizen.optim", "pytorch_lightning", "lightning")
    assert [name for name in imports(path_of(module)) if name.startswith(forbidden)] == []


def test_distillers_never_see_methods() -> None:
    forbidden = ("kaizen.methods", "kaizen.data", "pytorch_lightning", "lightning")
    assert [name for name in imports(path_of("kaizen.distillers")) if name.startswith(forbidden)] == []


@pytest.mark.parametrize("module", ["job_launcher", "kaizen.args", "kaizen.files", "kaizen.metrics"])
def test_some_files_need_the_standard_library_alone(module: str) -> None:
    needed = {module}  # and the package's __init__, whose load() imports torch when it is called
    while more := {name for one in needed for name in own_imports(one)} - needed - {"kaizen"}:
        needed |= more
    used = {name.split(".")[0] for one in needed for name in imports(path_of(one))}
    assert used - {"kaizen"} <= sys.stdlib_module_names


def test_the_package_imports_nothing_until_it_is_used() -> None:
    code = "import sys, kaizen; print({*sys.modules} & {'torch', 'numpy', 'pytorch_lightning', 'kaizen.trained'})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("module", HEAVY_USERS)
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top for alias in node.names} | {getattr(node, "module", None) for node in top}
    heavy = {"matplotlib", "wandb", "sklearn"}
    assert {str(name).split(".")[0] for name in names} & heavy == set()


def test_files_stay_short() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in product_files()}
    assert {name: n for name, n in lengths.items() if n > LONGEST and name not in LONGER} == {}
    assert [name for name in LONGER if lengths[name] <= LONGEST] == []  # then it needs no exception
