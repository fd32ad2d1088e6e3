"""What is installed, what of it works, and what is to be done about the rest: `eet doctor`.

Nothing here imports anything but the standard library: it must work where nothing else does.
"""
