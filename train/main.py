"""`python train/main.py --strategy=mirrored` is `eet train`; without photos it trains on a drawn catalogue."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    names_photos = any(argument.lstrip("-").startswith(("data", "flagfile", "help")) for argument in sys.argv[1:])
    sys.exit(main(["train", *sys.argv[1:], *([] if names_photos else ["--dataset=synthetic"])]))
