"""The tiny world: generated from scratch on a CPU, with a gold reward in the role of the human."""
