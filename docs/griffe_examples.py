"""Shows the examples of docstrings as code: a paragraph that begins with `>>>` is put between fences."""

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.M | re.S)


class Examples(griffe.Extension):
    """For every object that mkdocstrings reads."""

    def on_object(self, *, obj, **_):
        """Changes its docstring."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(lambda match: f"```python\n{match[0]}\n```", obj.docstring.value)
