"""Photos at URLs: what counts as one, how it is read from a server that fails now and then, and where it is kept."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import email.utils
import hashlib
import http.client
import os
import random
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from eet_tf import files
from eet_tf.data.limits import MAX_BYTES
from eet_tf.wording import said_by

AT_ONCE = 32  # photos that are read from servers at the same time: nearly all of the time is waiting

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(::[A-Za-z0-9+.:-]+)?://")
# what reads a protocol beside fsspec, where that is a package of its own
_LIBRARIES = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("abfs", "abfss", "adl", "az"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "oss": "ossfs",
}
_HTTP = ("http", "https")
_QUOTED = "%/:=&?~#+!$,;'@()*[]|"  # what stays as it is in a URL, which is quoted already or need not be
_PIECE = 2**16  # bytes
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REFUSED = {
    401: "the server asks for a password",
    403: "the server does not let you read it",
    404: "the server has no such photo",
    410: "the server has no such photo any more",
}
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED = 0.5, 8.0, 60.0  # seconds; the last is what a server may ask for


class UnreadError(Exception):
    """A photo that could not be read from its server; the message is the reason, in words."""


class _TransientError(Exception):
    """One try failed in a way that may pass; `seconds` is for how long the server asked to be left alone."""

    def __init__(self, why: str, seconds: float = 0.0):
        super().__init__(why)
        self.seconds = seconds


def is_url(path: str) -> bool:
    """Whether a photo's path is the URL of one that must be fetched; `file://` is a file like any other.

    Example:

    >>> [is_url(path) for path in ("https://shop.example/mug.jpg", "s3://bucket/mug.jpg", "mugs/1.jpg", "file:///a.jpg")]
    [True, True, False, False]
    """
    found = _URL.match(path) if "://" in path else None
    return found is not None and found[1].lower() != "file"


def joined(root: str, path: str) -> str:
    """Where a photo lies: its path from a folder on, or, if that is a URL, the path alone.

    Args:
        root: a folder, or a URL that relative paths start from.
        path: relative, absolute or a URL; `file://` becomes the path that it stands for.

    Example:

    >>> joined("photos", "mug.jpg"), joined("photos", "s3://bucket/mug.jpg"), joined("s3://bucket/mugs/", "1.jpg")
    ('photos/mug.jpg', 's3://bucket/mug.jpg', 's3://bucket/mugs/1.jpg')
    >>> joined("photos", "file:///disk/a%20mug.jpg")
    '/disk/a mug.jpg'
    """
    if "://" in path:
        if is_url(path):
            return path
        if path.lower().startswith("file://"):
            return urllib.parse.unquote(urllib.parse.urlsplit(path).path, errors="surrogateescape")
    if is_url(root) and not os.path.isabs(path):
        return f"{root.rstrip('/')}/{path}"
    return os.path.join(root, path)


def relative(path: str, start: str) -> str:
    """As `os.path.relpath`; a URL is the same from everywhere.

    Example:

    >>> relative("photos/mug.jpg", "photos/index"), relative("s3://bucket", "photos/index")
    ('../mug.jpg', 's3://bucket')
    """
    return path if is_url(path) else os.path.relpath(path or os.curdir, start)


def protocol_of(url: str) -> str:
    """What stands before `://`, in small letters.

    Example:

    >>> protocol_of("HTTPS://shop.example/mug.jpg")
    'https'
    """
    return url.partition("://")[0].partition("::")[0].lower()


def why_no_reader(protocol: str) -> str:
    """Why photos of a protocol cannot be read here at all, with what must be installed; `""` if they can.

    Example:

    >>> why_no_reader("https")
    ''
    """
    if protocol in _HTTP:
        return ""
    library = _LIBRARIES.get(protocol, "")
    try:
        import fsspec
    except ImportError:
        return f"{protocol}:// is read with fsspec: pip install 'eet-tf[remote]' {library}".rstrip()
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError:
        what = library or "a package that is not installed"
        return f"{protocol}:// is read with {what}" + (f": pip install {library}" if library else "")
    except ValueError:
        return f"nothing is read from {protocol}://; use https://, s3://, gs:// or another protocol that fsspec knows"
    return ""


@dataclasses.dataclass(frozen=True)
class RemotePhotos:
    """Reads photos at URLs. Any number of threads may use it.

    - `https://` and `http://` are read by the standard library, through a proxy if the environment names one; all
      others through fsspec and the client library of their cloud.
    - What may pass is tried again: a server that is busy, away or late, an answer that is cut off. The wait before try
      n + 1 is drawn from [0, 0.5 * 2**n] seconds, at most 8; a server that names a time (`Retry-After`) gets it.
    - A server that failed with 32 photos in a row is not asked any more: else each of a million photos would wait for
      it.
    - With a cache, a photo is fetched once. It is kept under the hash of its URL, written aside and renamed, so that
      neither a crash nor a second process leaves half of one.

    Args:
        cache_dir: folder in which photos are kept; `""` for none.
        timeout: seconds that one try may take.
        attempts: tries of one photo.
        wait: sleeps for some seconds.
        draw: a number between two others.

    Example:

    >>> RemotePhotos().read("nowhere://mug.jpg")
    Traceback (most recent call last):
    ...
    eet_tf.data.remote.UnreadError: nothing is read from nowhere://; use https://, s3://, gs:// or another protocol ...
    """

    cache_dir: str = ""
    timeout: float = 30.0
    attempts: int = 4
    wait: Callable[[float], object] = time.sleep
    draw: Callable[[float, float], float] = random.uniform
    _failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter, init=False, repr=False)

    def read(self, url: str) -> bytes:
        """The bytes of a photo, from the cache if it is there.

        Raises:
            UnreadError: if it cannot be read; says why.
        """
        file = self.file(url)
        if file:
            with contextlib.suppress(OSError), open(file, "rb") as kept:
                if content := kept.read():
                    return content
        content = self._fetched(url)
        if file and content:
            self._keep(file, content)
        return content

    def file(self, url: str) -> str:
        """Where a photo is kept; `""` without a cache."""
        if not self.cache_dir:
            return ""
        digest = hashlib.sha256(os.fsencode(url)).hexdigest()
        return os.path.join(self.cache_dir, digest[:2], digest)

    def forget(self, url: str) -> None:
        """Fetches a photo anew the next time: what was kept is no photo."""
        if file := self.file(url):
            with contextlib.suppress(FileNotFoundError):
                os.remove(file)

    def _keep(self, file: str, content: bytes) -> None:
        try:
            with files.replaced(file) as aside, open(aside, "wb") as opened:
                opened.write(content)
        except OSError as error:
            raise UnreadError(f"it cannot be kept in {self.cache_dir!r}: {said_by(error)}") from error

    def _fetched(self, url: str) -> bytes:
        protocol = protocol_of(url)
        if why := why_no_reader(protocol):
            raise UnreadError(why)
        host = url.partition("://")[2].partition("/")[0]
        if self._failed[host] >= AT_ONCE:
            raise UnreadError(f"{host} failed with {AT_ONCE} photos in a row, and is not asked any more")
        content = self._tried(_read_http if protocol in _HTTP else _read_fsspec, url, host)
        self._failed[host] = 0
        return content

    def _tried(self, read: Callable[[str, float], bytes], url: str, host: str) -> bytes:
        for number in range(self.attempts):
            try:
                return read(url, self.timeout)
            except UnreadError:
                self._failed[host] = 0  # it answered
                raise
            except _TransientError as error:
                failed = error
            if number < self.attempts - 1:
                longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**number)
                self.wait(max(self.draw(0.0, longest), min(failed.seconds, _LONGEST_ASKED)))
        self._failed[host] += 1
        times = f", {self.attempts} times" if self.attempts > 1 else ""
        raise UnreadError(f"{failed}{times}") from failed


def _read_http(url: str, timeout: float) -> bytes:
    end = time.monotonic() + timeout
    try:
        request = urllib.request.Request(_quoted(url), headers={"User-Agent": "eet-tf", "Accept": "image/*, */*;q=0.5"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _body(response, timeout, end)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(error) from None
    except urllib.error.URLError as error:
        raise _of_connection(error.reason, url, timeout) from error
    except (http.client.InvalidURL, UnicodeError, ValueError) as error:
        raise UnreadError("it is no URL of a photo; mend it") from error
    except http.client.HTTPException as error:
        raise _TransientError("the server's answer is cut off or no HTTP") from error
    except OSError as error:  # while the answer is read
        raise _of_connection(error, url, timeout) from error


def _quoted(url: str) -> str:
    """A URL in ASCII: letters of other scripts and blanks, as people paste them, are quoted."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname:
        raise ValueError(f"no host in {url!r}")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    return urllib.parse.quote(parts._replace(netloc=host).geturl(), safe=_QUOTED, errors="surrogateescape")


def _body(response: http.client.HTTPResponse, timeout: float, end: float) -> bytes:
    """The body of an answer: whole, in time, and no larger than a photo may be."""
    declared = response.length  # None if it comes in chunks, which say themselves whether they are whole
    pieces, size = [], 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise UnreadError(f"the file has more than {MAX_BYTES // 2**20} MiB")
        if time.monotonic() > end:
            raise _TransientError(f"the photo did not come within {timeout:g} s")
    if declared is not None and size < declared:
        raise _TransientError(f"the answer is cut off: {size:,} of {declared:,} bytes")
    return b"".join(pieces)


def _of_status(error: urllib.error.HTTPError) -> Exception:
    told = f"HTTP {error.code}"
    if error.code in _TRANSIENT:
        return _TransientError(f"the server is busy or has failed ({told})", _seconds(error.headers.get("Retry-After")))
    return UnreadError(f"{_REFUSED.get(error.code, 'the server does not give it')} ({told})")


def _seconds(retry_after: str | None) -> float:
    """For how long a server asks to be left alone: a number of seconds, or a date."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _of_connection(reason, url: str, timeout: float) -> Exception:
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UnreadError(f"the certificate of {host} is not valid: {reason.verify_message}")
    if isinstance(reason, TimeoutError):
        return _TransientError(f"{host} did not answer within {timeout:g} s")
    if isinstance(reason, ConnectionRefusedError):
        return _TransientError(f"no server answers at {host}")
    if isinstance(reason, ConnectionError):
        return _TransientError(f"{host} ended the connection")
    if isinstance(reason, socket.gaierror):
        return _TransientError(f"the host {host} is not known, or there is no network")
    return _TransientError(f"{host} cannot be reached: {_line(reason)}")


def _read_fsspec(url: str, timeout: float) -> bytes:
    from fsspec import asyn, core

    try:
        filesystem, path = core.url_to_fs(url)
        if filesystem.async_impl:
            content = asyn.sync(filesystem.loop, filesystem._cat_file, path, timeout=timeout)
        else:
            content = filesystem.cat_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadError("there is no such photo") from error
    except IsADirectoryError as error:
        raise UnreadError("it is a folder") from error
    except PermissionError as error:
        raise UnreadError(f"you may not read it: {_line(error)}") from error
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise _TransientError(f"it did not come within {timeout:g} s") from error
    except Exception as error:  # each cloud's library has its own
        raise _TransientError(f"it cannot be read: {_line(error)}") from error
    if len(content) > MAX_BYTES:
        raise UnreadError(f"the file has more than {MAX_BYTES // 2**20} MiB")
    return content


def _line(error) -> str:
    """What an error says, in one line."""
    return said_by(error)[:200]
