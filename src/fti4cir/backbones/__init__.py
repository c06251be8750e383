"""Dual encoders: an image tower and a text tower with one joint space."""
