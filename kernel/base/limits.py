"""Every limit of the kernel, with its unit in its name and its reason beside it.

`Limits()` holds the defaults. The operator changes them in config.toml (`policy.py`); a caller can only ask for less.
"""

from dataclasses import dataclass

__all__ = ["Limits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    # --- a sandbox: totals over all its processes
    timeout_s_max: float = 7200.0
    """Longest wall time of one sandbox call; a longer piece of work is several steps."""
    cpus_max: float = 4.0
    """CPU time of one call over all its processes, for each second of its `timeout_s`: work may use a laptop's cores, not a server's."""
    memory_mb_max: int = 4096
    processes_max: int = 64
    descriptors_max: int = 256
    file_bytes_max: int = 256 * MIB
    """One file (RLIMIT_FSIZE)."""
    workspace_bytes_max: int = 512 * MIB
    workspace_inodes_max: int = 16_384
    output_bytes_max: int = 16 * MIB
    """Produced by stdout, stderr and the notes of a call together; past it the guest is killed (`stopped_by: output`)."""
    output_bytes_kept: int = 256 * KIB
    """Of each stream, head and tail; the middle is dropped while it is produced."""
    collected_bytes_max: int = 64 * MIB
    """Changed files copied out of a workspace after a call; the rest is named but not kept."""
    collected_files_max: int = 256
    artifact_ttl_s: float = 48 * 3600.0
    """The contract promises 24 h; twice that forgives a clock that was wrong."""
    sandboxes_max: int = 32
    """Alive at once, until the last of their processes is reaped. A parked program counts as none."""
    sandboxes_waiting_max: int = 256
    """Calls that wait for one of those; more are refused with `sandbox.overloaded`."""
    sandboxes_parked_min: int = 4
    sandboxes_parked_max: int = 16
    """Children kept ready, of one kind; the number follows how many are asked for at once. 0: none, every call forks its own."""

    # --- the channel to a guest (cell/frames.py)
    guest_frame_bytes_max: int = 4 * MIB
    guest_calls_max: int = 10_000
    guest_calls_open_max: int = 256
    guest_bytes_open_max: int = 32 * MIB
    """Arguments and outcomes of one program's open calls: they are in the kernel's memory until they are answered."""
    guest_ticks_max: int = 100_000
    """Timers of its own loop that wake a program, each of them a row: a day of polling by the second. kernel.sleep is a call."""
    runs_open_max: int = 10_000
    """Runs that have not ended, those that programs spawn among them: each has its place in memory."""
    value_bytes_max: int = 2 * MIB
    """One argument or result of a step; Temporal's hard limit for a payload is the same."""

    # --- the caller
    argument_bytes_max: int = 8 * MIB
    """One tool call, as JSON."""
    argument_depth_max: int = 64
    reply_bytes_max: int = 16 * KIB
    """Claude Code warns at 10k tokens; 16 KiB of log lines are about 9k."""
    wait_s_max: float = 50.0
    """Most hosts give up on a tool call after 60 s."""

    # --- the store
    batch_units_max: int = 512
    wal_bytes_checkpoint: int = 16 * MIB
    blob_inline_bytes_max: int = 8 * KIB
    audit_events_max: int = 200_000
    """Kept; the oldest go first, in pieces, and the audit says so."""
    audit_waiting_max: int = 8192
    """Events in memory that are not on disk yet, with the calls that will add one; past it no sandbox is started or read."""

    # --- runs
    runs_working_max: int = 256
    """Programs whose process may be alive at once, per kernel; more wait in the queue."""
    reruns_without_progress_max: int = 3
    reruns_max: int = 20
    cancel_grace_s: float = 10.0
    park_after_s: float = 60.0
    turn_cpu_s_max: float = 30.0

    # --- memory and skills
    memory_text_bytes_max: int = 256 * KIB
    """Turns of public chat histories reach 50 KiB; a pasted document is a file, not a memory."""
    memory_items_max: int = 100
    """Of one memory_add."""
    memory_label_chars_max: int = 256
    """A key, conversation, speaker, source, tag or label of a note."""
    memory_tags_max: int = 32
    memory_rows_max: int = 1_000_000
    """Of one principal, history included; search was measured up to there."""
    memory_bytes_max: int = 1024 * MIB
    """Of one principal: texts with their labels, history included."""
    memory_held_max: int = 1000
    """In quarantine, of one principal: more than a person looks through is a flood."""
    block_chars_max: int = 4000
    blocks_max: int = 32
    """Standing notes are read whole at the start of a session: 32 full ones are about 32k tokens."""
    skill_files_max: int = 512
    skill_bytes_max: int = 16 * MIB
    """Both as the MCP skills extension sets them."""
    skill_manifests_kept: int = 20_000
    """In memory, so that an unchanged skill is not read again: twice the largest collection that was measured."""
    skills_made_max: int = 1000
    skill_written_bytes_max: int = 1024 * MIB
    """What agents write of skills, of one principal; nothing of it is thrown away, so it must end somewhere."""

    # --- the scheduler
    slots: int = 64
    queue_max: int = 4096
