"""`python export/verify.py` is the command `eet verify`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
