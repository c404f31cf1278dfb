"""Errors of the operating system that a person can mend, as refusals; all others are faults of this software."""

from __future__ import annotations

import errno

from common.errors import Code, Refusal

_DO = {
    errno.EACCES: "Check owner and mode, or name another place",
    errno.EPERM: "Check owner and mode, or name another place",
    errno.EROFS: "Name a place that can be written to",
    errno.ENOSPC: "Free some space, or name another place",
    errno.EDQUOT: "Free some space, or name another place",
    errno.EISDIR: "Name a file, not a folder",
    errno.ENOTDIR: "Name another place: a part of its path is a file",
    errno.EEXIST: "Name another place: there is a file of that name",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Mend the links on its path",
}


def refusal_of_system(error: OSError) -> Refusal | None:
    """FILE_UNWRITABLE or FILE_MISSING for what lies with a place; None where the error tells nothing of the kind."""
    place = error.filename if isinstance(error.filename, str) else "The file"
    why = (error.strerror or "the system refuses").lower()
    if error.errno == errno.ENOENT:
        return Refusal(Code.FILE_MISSING, f"{place} not used", why, "Check the path, and the folder you are in")
    if error.errno not in _DO:
        return None
    return Refusal(Code.FILE_UNWRITABLE, f"{place} not used", why, _DO[error.errno])
