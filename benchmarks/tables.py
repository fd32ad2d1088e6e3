"""Where the tables of the benchmarks of cost go."""

import os

from eet_tf.files import replaced


def write_table(folder: str, text: str) -> None:
    """Writes `table.md`, and prints it."""
    os.makedirs(folder, exist_ok=True)
    with replaced(os.path.join(folder, "table.md")) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
