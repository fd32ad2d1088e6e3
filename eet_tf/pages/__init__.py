"""The pages room: HTML pages that need nothing but themselves, their thumbnails and curves."""
