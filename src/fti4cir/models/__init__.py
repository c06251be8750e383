"""Models: load, save, describe."""
