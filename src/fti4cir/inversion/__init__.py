"""Textual inversion: images to pseudo-words, and pseudo-words into sentences."""
