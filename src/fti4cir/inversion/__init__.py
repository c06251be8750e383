"""Textual inversion: pictures to pseudo-words, and pseudo-words into sentences."""
