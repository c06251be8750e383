"""Captions: splitting them, and editing them into training pairs for composed retrieval."""
