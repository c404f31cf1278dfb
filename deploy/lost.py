"""Which of a federation's processes will not run again, said as it happens; and when nothing is left to run for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from common.console import remark
from common.errors import Code, Refusal

OF_A_SITE = ("agent", "link")


class Lost:
    """Says on standard error, once, that a site's process refused to go on: the others go on without that site.

    refused  why each process that will not run again does not, by name, as `Federation.refused`
    sites    names of the sites that were started here
    """

    def __init__(self, refused: Callable[[], Mapping[str, Refusal]], sites: Collection[str]) -> None:
        self._refused, self._sites, self._said = refused, frozenset(sites), set[str]()

    def __call__(self) -> None:
        """Look once.

        Errors: the Refusal of a process that everybody needs; PROCESS_FAILED once none of the sites is left.
        """
        found = self._refused()
        for name, refusal in found.items():
            if _site_of(name) not in self._sites:
                raise refusal
            if name not in self._said:
                self._said.add(name)
                when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
                remark(f"{when}  {refusal} The others go on; start the federation again once this is mended.")
        if self._sites and {_site_of(name) for name in found} >= self._sites:
            why = f"none of its {len(self._sites)} sites runs: {', '.join(sorted(found))} refused to go on"
            last = list(found.values())[-1]
            raise Refusal(Code.PROCESS_FAILED, "Federation not running", f"{why}; {last.why}", last.do)


def _site_of(process: str) -> str | None:
    """The site that the process is of; None for one that serves all of them."""
    kind, _, name = process.partition("-")
    return name if kind in OF_A_SITE else None
