"""What a pinger has seen, itself included."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Running totals, all since the pinger was made."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    cancelled: int = 0
    send_errors: int = 0
    late: int = 0
    duplicates: int = 0
    foreign: int = 0
    clock_steps: int = 0
    largest_read_delay_nano: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """A reading of a pinger's counters; ``sent == answered + lost + cancelled + in_flight``."""

    sent: int
    """Probes the kernel accepted."""
    answered: int
    """Probes whose answer came in time."""
    lost: int
    """Probes without an answer in time, those reported as undeliverable included."""
    cancelled: int
    """Probes whose ping was cancelled before their end."""
    in_flight: int
    """Probes that may still be answered."""
    waiting: int
    """Pings whose probe was not sent yet, since sends are spread."""
    send_errors: int
    """Probes the kernel refused at once; they count as lost for their peer, not in ``lost``."""
    late: int
    """Answers that came after their probe had ended without one."""
    duplicates: int
    """Further answers to an answered probe."""
    foreign: int
    """Packets and error reports that belong to no probe: forged, from a wrong address, damaged,
    or to another program's probe. What the kernel's filter turns away is not seen here."""
    receive_drops: int
    """Answers the kernel threw away because the sockets' queues were full."""
    clock_steps: int
    """Answers measured without the kernel's time stamp, as the wall clock had been stepped."""
    largest_read_delay_nano: int
    """The longest that an answer lay in the queue before the event loop came to read it."""
