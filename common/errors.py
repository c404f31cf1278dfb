"""The family of refusals: what was refused, why, what to do; only the code crosses the wire."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Stable names of refusals. Codes are never removed and never change their meaning."""

    # Configuration and input
    CONFIG_INVALID = "CONFIG_INVALID"  # a setting is unknown, of the wrong type, or outside its range
    JOB_INVALID = "JOB_INVALID"  # settings of a job that cannot live together
    FILE_MISSING = "FILE_MISSING"  # a file or folder that is needed is not there
    FILE_EXISTS = "FILE_EXISTS"  # a file or folder would be overwritten
    FILE_UNWRITABLE = "FILE_UNWRITABLE"  # a file, folder or stream cannot be written
    DATA_INVALID = "DATA_INVALID"  # records do not fit the declared schema
    MODEL_INVALID = "MODEL_INVALID"  # a model cannot be trained under the asked guarantee
    UPDATE_INVALID = "UPDATE_INVALID"  # an update is not finite or has the wrong size
    # Messages
    MESSAGE_INVALID = "MESSAGE_INVALID"  # bytes that are no message of a known kind and version
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"  # more bytes than the receiver accepts
    MESSAGE_VERSION = "MESSAGE_VERSION"  # a message of another protocol version
    SENDER_UNKNOWN = "SENDER_UNKNOWN"  # a signer that the manifest does not name
    RUN_UNKNOWN = "RUN_UNKNOWN"  # a run or round nobody opened
    # Policy of a site
    POLICY_TASK = "POLICY_TASK"  # this kind of order is not allowed
    POLICY_MODEL = "POLICY_MODEL"  # this model is not allowed
    POLICY_DATA = "POLICY_DATA"  # this data set or column is not allowed
    POLICY_PRIVACY = "POLICY_PRIVACY"  # the guarantee asked for is weaker than the site demands
    POLICY_SECAGG = "POLICY_SECAGG"  # the aggregation asked for is weaker than the site demands
    POLICY_RELEASE = "POLICY_RELEASE"  # this output may not leave the site
    COHORT_TOO_SMALL = "COHORT_TOO_SMALL"  # the site holds fewer records than its own minimum
    # Privacy ledger
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"  # the charge would exceed what the site allows
    TURN_TOO_EARLY = "TURN_TOO_EARLY"  # the site took part in a round too near to this one for correlated noise
    LEDGER_TAMPERED = "LEDGER_TAMPERED"  # chain, signature or order of entries does not verify
    LEDGER_ROLLED_BACK = "LEDGER_ROLLED_BACK"  # the ledger lacks an entry that was acknowledged
    LEDGER_LOCKED = "LEDGER_LOCKED"  # another process holds the ledger
    # Secure aggregation
    E_POLICY = "E_POLICY"  # session record outside the manifest's rules
    E_MANIFEST = "E_MANIFEST"  # manifest unsigned, changed, or without this site
    E_SIG = "E_SIG"  # a signature does not verify
    E_ROUND = "E_ROUND"  # this aggregation number was used already or never enrolled
    E_SET = "E_SET"  # the set of reports is too small, repeated, or not the one answered before
    E_MODEL = "E_MODEL"  # reports of different models, or a model already answered
    E_DUP = "E_DUP"  # an id occurs twice
    E_KEY = "E_KEY"  # a public key or ciphertext is degenerate
    E_SHARE = "E_SHARE"  # a key share is malformed or not its dealer's
    E_RANGE = "E_RANGE"  # a value does not fit the ring
    E_SUM_CHECK = "E_SUM_CHECK"  # the unmasked sum fails its check lanes
    E_TOO_FEW = "E_TOO_FEW"  # fewer reports than the quorum at the deadline
    E_HELPER_LOST = "E_HELPER_LOST"  # an unmasking site did not answer
    KEYS_LOCKED = "KEYS_LOCKED"  # another process holds the key store
    # Processes
    ALREADY_RUNNING = "ALREADY_RUNNING"  # another process does this work for the same folder or address
    SITE_UNREACHABLE = "SITE_UNREACHABLE"  # no answer within the deadline
    AGENT_UNAVAILABLE = "AGENT_UNAVAILABLE"  # the link cannot reach its agent
    AGENT_BUSY = "AGENT_BUSY"  # the agent works on another order
    FEDERATION_UNREACHABLE = "FEDERATION_UNREACHABLE"  # the coordination server does not answer
    KEY_REFUSED = "KEY_REFUSED"  # the server does not know this node key, or it was revoked
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"  # the server's certificate does not verify
    PROCESS_FAILED = "PROCESS_FAILED"  # a child process ended before its work was done
    RUN_FAILED = "RUN_FAILED"  # a run ended without a model
    PART_MISSING = "PART_MISSING"  # an optional part of the installation is needed and not there
    INTERNAL = "INTERNAL"  # a fault in this software; the site's own log has the details


class Refusal(Exception):
    """A request that was not carried out, and changed nothing.

    code  stable name, the only part that may be sent to another party
    what  what was refused, with the offending name or value where the reader may know it
    why   the rule it breaks
    do    what the reader can do about it
    """

    def __init__(self, code: Code, what: str, why: str, do: str):
        super().__init__(f"{what}: {why}. {do}.")
        self.code, self.what, self.why, self.do = code, what, why, do

    def as_dict(self) -> dict[str, str]:
        """The refusal as the JSON that every command prints (keys code, what, why, do)."""
        return {"code": self.code.value, "what": self.what, "why": self.why, "do": self.do}
