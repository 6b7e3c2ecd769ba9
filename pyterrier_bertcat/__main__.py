"""``python -m pyterrier_bertcat``: the command line."""

import sys

from pyterrier_bertcat.cli import main

if __name__ == "__main__":
    sys.exit(main())
