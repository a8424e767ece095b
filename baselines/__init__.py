"""One module per baseline: what differs from the shared loop of `metaapo.loop.trainer`."""
