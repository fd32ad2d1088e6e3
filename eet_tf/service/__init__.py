"""The public names of the demo room: a page on which a person searches a catalogue by a photo."""

from eet_tf.service.app import create_app
from eet_tf.service.photos import DemoError

__all__ = ["DemoError", "create_app"]
