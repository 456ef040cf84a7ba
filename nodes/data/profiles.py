"""What kinds of flow the synthetic data is made of, and which class shows which.

Marginals follow what NetFlow v2 records of CSE-CIC-IDS2018 look like: most benign flows are short DNS and web
exchanges; HTTP floods come from few tools, so their flows resemble each other (DDoS and DoS share two profiles);
infiltrated machines mostly do what benign machines do; injections are HTTP requests, a few of them odd.
"""

from dataclasses import dataclass

Weighted = tuple[tuple[float, float], ...]
"""Values with weights."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of flow.

    Pairs (median, sigma) are log-normal: packets from the client, packets back per packet sent, bytes per packet each
    way, duration in milliseconds. answered: share of flows with packets back. flags: TCP flags of client and server
    with weights. ttls: initial TTLs, of which `hops` (low, high) are taken off. windows: TCP windows of client and
    server. l7: nDPI's protocol number. dns: whether the flow is a DNS exchange. retransmits: share of packets resent.
    wraps: share of flows whose duration the collector records as 2^32 microseconds less what it was.
    """

    protocol: int
    packets: tuple[float, float]
    in_size: tuple[float, float]
    out_size: tuple[float, float]
    duration: tuple[float, float]
    l7: Weighted
    ttls: Weighted = ((128, 1),)
    hops: tuple[int, int] = (0, 1)
    ratio: tuple[float, float] = (1.0, 0.2)
    answered: float = 1.0
    flags: tuple[tuple[int, int, float], ...] = ((0, 0, 1.0),)
    windows_in: Weighted = ((0, 1),)
    windows_out: Weighted = ((0, 1),)
    dns: bool = False
    retransmits: float = 0.0
    wraps: float = 0.0


_LAN = ((128, 0.75), (64, 0.25))
_UNSEEN = ((0, 0.7), (128, 0.2), (64, 0.1))
"""Collectors leave the TTL of many datagrams at 0."""

PROFILES: dict[str, Profile] = {
    "dns": Profile(
        17, (1, 0.15), (66, 0.2), (128, 0.5), (2, 1.5), ((0, 0.55), (5.126, 0.25), (5.119, 0.1), (5.178, 0.1)), _UNSEEN,
        dns=True,
    ),
    "web": Profile(
        6, (11, 0.8), (190, 0.7), (520, 0.7), (900, 1.8), ((7, 0.3), (91, 0.2), (91.178, 0.3), (91.126, 0.2)), _LAN,
        ratio=(1.2, 0.4), flags=((222, 222, 0.35), (27, 27, 0.3), (223, 219, 0.35)), retransmits=0.02,
        windows_in=((8192, 0.75), (1024, 0.15), (64240, 0.1)), windows_out=((8192, 0.5), (14600, 0.25), (65535, 0.25)),
        wraps=0.05,
    ),
    "transfer": Profile(
        6, (120, 1.6), (80, 0.5), (1150, 0.2), (6000, 1.5), ((91, 0.6), (7, 0.4)), _LAN, ratio=(2.2, 0.5),
        flags=((24, 24, 0.4), (27, 27, 0.6)), windows_in=((64240, 0.5), (65535, 0.5)),
        windows_out=((65535, 0.5), (28960, 0.5)), retransmits=0.03,
    ),
    "desktop": Profile(
        6, (9, 0.5), (150, 0.5), (210, 0.6), (2400, 1.2), ((88, 1),), ((128, 1),), hops=(8, 30),
        flags=((30, 22, 0.5), (222, 222, 0.3), (31, 27, 0.2)), windows_in=((8192, 0.5), (64000, 0.3), (1024, 0.2)),
        windows_out=((64000, 0.7), (8192, 0.3)), retransmits=0.05, wraps=0.02,
    ),
    "shell": Profile(
        6, (22, 1.0), (130, 0.4), (180, 0.5), (9000, 1.6), ((92, 1),), ((128, 0.8), (64, 0.2)), hops=(0, 12),
        flags=((26, 26, 0.6), (24, 24, 0.4)), windows_in=((64240, 0.6), (29200, 0.4)), windows_out=((64240, 1),),
    ),
    "refused": Profile(
        6, (1.3, 0.3), (46, 0.12), (40, 0.02), (1, 1.0), ((0, 0.8), (41, 0.2)), ((128, 0.7), (64, 0.3)),
        hops=(0, 28), flags=((2, 20, 0.7), (6, 20, 0.3)), windows_in=((8192, 0.5), (64240, 0.3), (1024, 0.2)),
        answered=0.6,
    ),
    "datagrams": Profile(
        17, (3, 1.1), (190, 0.8), (170, 0.8), (700, 2.0), ((0, 0.5), (9, 0.2), (127, 0.3)), _UNSEEN, answered=0.55,
    ),
    "ping": Profile(1, (4, 0.5), (84, 0.1), (84, 0.1), (3000, 0.5), ((81, 1),), _LAN, hops=(0, 20), answered=0.8),
    "http flood": Profile(
        6, (5, 0.12), (100, 0.25), (230, 0.12), (2600, 0.7), ((7, 0.9), (7.178, 0.1)), ((128, 1),), hops=(1, 1),
        flags=((219, 27, 0.8), (223, 219, 0.2)), windows_in=((65535, 0.8), (8192, 0.2)), windows_out=((26883, 1),),
        wraps=0.75,
    ),
    "udp flood": Profile(
        17, (9000, 0.6), (60, 0.02), (60, 0.02), (40000, 0.3), ((0, 1),), ((128, 1),), hops=(1, 1), answered=0.02,
    ),
    "http hammer": Profile(
        6, (24, 0.18), (125, 0.15), (225, 0.15), (1500, 0.8), ((7, 1),), ((64, 1),), hops=(1, 1), ratio=(0.95, 0.1),
        flags=((27, 27, 0.9), (31, 27, 0.1)), windows_in=((26883, 1),), windows_out=((26847, 1),), retransmits=0.05,
        wraps=0.8,
    ),
    "slow http": Profile(
        6, (7, 0.4), (62, 0.12), (56, 0.08), (70000, 0.4), ((7, 0.6), (1.178, 0.4)), ((64, 1),), hops=(1, 1),
        flags=((22, 18, 0.5), (31, 27, 0.5)), windows_in=((26883, 1),), windows_out=((26847, 0.7), (225, 0.3)),
        wraps=0.9,
    ),
    "beacon": Profile(
        6, (5, 0.1), (108, 0.05), (68, 0.05), (350, 0.5), ((131.7, 0.95), (131, 0.05)), ((128, 1),), hops=(0, 0),
        flags=((219, 27, 0.98), (223, 27, 0.02)), windows_in=((8192, 1),), windows_out=((26883, 1),), wraps=0.06,
    ),
    "password guesses": Profile(
        6, (22, 0.15), (135, 0.08), (165, 0.08), (350, 0.4), ((92, 1),), ((64, 1),), hops=(1, 1),
        flags=((27, 31, 1.0),), windows_in=((26883, 1),), windows_out=((26847, 1),), wraps=0.4,
    ),
    "ftp guesses": Profile(
        6, (1, 0.05), (60, 0.01), (40, 0.01), (1, 0.5), ((1, 1),), ((64, 1),), hops=(1, 1), flags=((2, 20, 1.0),),
        windows_in=((26883, 1),),
    ),
    "inner scan": Profile(
        6, (1, 0.05), (44, 0.01), (40, 0.01), (1, 0.8), ((0, 0.9), (127, 0.1)), ((255, 1),), hops=(1, 16),
        flags=((194, 20, 1.0),), windows_in=((1024, 1),), answered=0.9,
    ),
    "odd request": Profile(
        6, (5, 0.25), (240, 0.4), (320, 0.5), (300, 1.0), ((7, 1),), ((128, 0.6), (64, 0.4)), hops=(1, 1),
        flags=((219, 27, 0.7), (27, 27, 0.3)), windows_in=((8192, 0.5), (29200, 0.5)), windows_out=((26883, 1),),
        wraps=0.5,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlowClass:
    """A class: its share of all rows, and its profiles with their weights."""

    share: float
    profiles: dict[str, float]


_BENIGN = {
    "dns": 0.4, "web": 0.27, "desktop": 0.12, "refused": 0.07, "datagrams": 0.08, "transfer": 0.03, "shell": 0.02,
    "ping": 0.01,
}  # fmt: skip

CLASSES: dict[str, FlowClass] = {
    "Benign": FlowClass(0.865, _BENIGN),
    "Bot": FlowClass(0.011, {"beacon": 0.96, "web": 0.04}),
    "Brute Force": FlowClass(0.012, {"password guesses": 0.74, "ftp guesses": 0.16, "shell": 0.1}),
    "DDoS": FlowClass(0.068, {"http flood": 0.82, "http hammer": 0.14, "udp flood": 0.02, "web": 0.02}),
    "DoS": FlowClass(0.03, {"http hammer": 0.66, "slow http": 0.2, "http flood": 0.12, "web": 0.02}),
    "Infiltration": FlowClass(
        0.011, {"inner scan": 0.3, "dns": 0.32, "web": 0.14, "datagrams": 0.12, "desktop": 0.07, "refused": 0.05}
    ),
    "Injection": FlowClass(0.003, {"odd request": 0.55, "web": 0.35, "http flood": 0.1}),
}
