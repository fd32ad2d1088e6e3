"""The public names of the demo room: a page on which a person searches a catalogue by a photo."""

from eet_tf.demo.app import create_app
from eet_tf.demo.photos import DemoError

__all__ = ["DemoError", "create_app"]
