"""What is wrong with a catalogue's photos and labels, before anything is trained on them."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "AuditResult": "eet_tf.audit.findings",
    "Finding": "eet_tf.audit.findings",
    "audit_catalog": "eet_tf.audit.findings",
    "write_page": "eet_tf.audit.page",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
