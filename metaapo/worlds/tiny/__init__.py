"""The tiny world: made from nothing on a CPU, with a gold reward that plays the human."""
