"""`python -m eet_tf` is the command `eet`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
