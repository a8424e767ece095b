"""One module per baseline, defining how it differs from the shared loop in `metaapo.loop.trainer`."""
