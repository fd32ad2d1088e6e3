"""`python -m eet_tf.audit` is the command `eet audit`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
