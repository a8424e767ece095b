"""Checkpoints and datasets from a hub, a folder or a package: locating, fetching, checking and converting them."""
