"""Makes the engine plugins visible to vLLM without installing them.

vLLM looks for plugins among the entry points of installed distributions, and Python finds a distribution in any
directory of its path that holds a ``.dist-info``. So each run gets a directory with a copy of
``harness/engine_plugins`` and the metadata that declares its entry points. On an engine's ``PYTHONPATH`` the directory
works with any interpreter, and no other engine sees it.

If ``VLLM_PLUGINS`` is set, vLLM loads only the plugins listed there: :data:`PLUGIN_NAMES` must be among them.
"""

from pathlib import Path

PACKAGE = "pd_harness_engine_plugins"
"""The plugins' top-level name inside an engine."""

PLUGIN_NAMES = ("pd_harness_nixl_progress", "pd_harness_queue_pause")
"""The names of the entry points, for ``VLLM_PLUGINS``."""

_SOURCE = Path(__file__).parent.parent / "engine_plugins"

_METADATA = f"""\
Metadata-Version: 2.1
Name: {PACKAGE}
Version: 0
"""

_ENTRY_POINTS = f"""\
[vllm.general_plugins]
{PLUGIN_NAMES[0]} = {PACKAGE}.nixl_progress:register
{PLUGIN_NAMES[1]} = {PACKAGE}.queue_pause:register
"""


def write_plugin_path(directory: Path) -> Path:
    """Write the plugins to ``directory``, which is created if necessary, and return it for ``PYTHONPATH``.

    The files of an earlier version are replaced. Raises OSError if the directory cannot be written.
    """
    package, metadata = directory / PACKAGE, directory / f"{PACKAGE}-0.dist-info"
    _write(package, {source.name: source.read_text("utf-8") for source in _SOURCE.glob("*.py")})
    _write(metadata, {"METADATA": _METADATA, "entry_points.txt": _ENTRY_POINTS})
    return directory


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.glob("*.py")) - {folder / name for name in files}:
        stale.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
