"""`python -m fti4cir`, which `torchrun -m fti4cir` starts, too."""

from .cli import main

if __name__ == "__main__":
    main()
