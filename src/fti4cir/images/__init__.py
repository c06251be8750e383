"""Image files: find them, decode them, make them an encoder's input."""
