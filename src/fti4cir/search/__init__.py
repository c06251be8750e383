"""Collections of images: index them, search them."""
