"""A bug to plant in a whole run: chosen and rejected are swapped in a tenth of the online pairs.

    PYTHONPATH=tests/planted_bug snakemake --cores all --configfile config/default.yaml --config experiment=planted
    python -m reports.check --run results/planted --reference results/default      # has to exit with status 1

Python imports a module of this name at its start from PYTHONPATH. Nothing of the project imports it, so no code that is
shipped can swap a pair; which pairs are swapped depends on their texts alone.
"""

import importlib.abc
import importlib.util
import sys
import zlib
from dataclasses import replace

ONE_IN = 10


def swapping(best_worst):
    """Wrap `metaapo.loop.annotate.best_worst`."""

    def with_a_bug(texts, scores):
        pair = best_worst(texts, scores)
        if zlib.crc32(" | ".join(texts).encode()) % ONE_IN:
            return pair
        return replace(pair, chosen=pair.rejected, rejected=pair.chosen)

    return with_a_bug


class Planter(importlib.abc.MetaPathFinder):
    """Plants the bug in `metaapo.loop.online` when that module is imported."""

    def find_spec(self, name, path, target=None):
        """Find the module as usual, and wrap its function after its code has run."""
        if name != "metaapo.loop.online":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_plant(module):
            run(module)
            module.best_worst = swapping(module.best_worst)

        spec.loader.exec_module = run_and_plant
        return spec


sys.meta_path.insert(0, Planter())
