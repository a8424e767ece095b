"""Pinned arithmetic: the same bytes on every x86-64 machine with AVX2.

Numerical libraries choose their kernels by the processor, and kernels add in different orders. The pin asks for kernels
that every such processor has. Libraries read these variables at their first operation, numpy's at its import, so the
Snakefile pins before any job starts, and each command that computes does so again for whoever calls it by hand.
"""

from __future__ import annotations

import os

from metaapo.config import HardwareConfig

PIN = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own vectorized kernels
    "MKL_CBWR": "COMPATIBLE",  # matrix products; the only branch that Intel promises to be equal on all makes
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's matrix products
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # bf16 products and convolutions
    "DNNL_MAX_CPU_ISA": "AVX2",  # the same, under the name that older builds read
}


def pin_arithmetic(hardware: HardwareConfig) -> None:
    """Set the variables for this process and its children, over what is set already, where the configuration asks."""
    if hardware.pinned_arithmetic:
        os.environ.update(PIN)
