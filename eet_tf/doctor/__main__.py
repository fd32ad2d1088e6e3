"""`python -m eet_tf.doctor` is the command `eet doctor`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
