"""The most memory a process held for a while."""

import os
import threading
import time


class PeakMemory:
    """The most memory the process held within a `with` block over what it held before, in MB."""

    def __enter__(self):
        self.before = self.peak = _resident_mb()
        self._goes_on = True
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self):
        while self._goes_on:
            self.peak = max(self.peak, _resident_mb())
            time.sleep(0.0005)

    def __exit__(self, *_):
        self._goes_on = False
        self._watcher.join()

    @property
    def megabytes(self) -> float:
        """Peak minus what was there before."""
        return self.peak - self.before


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
