import sys

from rlred.cli import main

if __name__ == "__main__":
    sys.exit(main())
